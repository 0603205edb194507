"""`corral template`: which chat template a model gets, why, and what it makes of two turns."""

from collections.abc import Callable
from pathlib import Path

from server.chat.choice import Known, choose, end_marker, recognised
from server.chat.template import compile_template, render
from server.config import Config
from server.errors import InvalidRequest
from server.gguf import Header, read_ends, read_header
from server.pool.catalog import read_catalog

TALK = (
    {"role": "system", "content": "{system}"},
    {"role": "user", "content": "{question}"},
    {"role": "assistant", "content": "{answer}"},
    {"role": "user", "content": "{question}"},
)


def run(path: Path, configured: str | None, asked: str | None, say: Callable[[str], None]) -> None:
    """Tell it of the GGUF at `path`, which is not loaded. Raises CorralError."""
    header = read_header(path)
    bos, eos = read_ends(path)
    choice = choose(known(header, path), configured, asked)
    template = compile_template(choice.source)
    choice = recognised(choice, template, bos, eos)
    say(f"template  {choice.name or 'none of templates/'}")
    say(f"chosen by {choice.origin}: {choice.reason}")
    say(f"answers end with {end_marker(template, bos, eos) or 'nothing'!r}")
    say(f"stop strings {', '.join(map(repr, choice.stops)) or 'none'}")
    if choice.origin == "GGUF" and header.tool_template:
        say("with tools, the GGUF's own template for them is used")
    if choice.origin == "GGUF" and header.document_template:
        say("with documents, the GGUF's own template for them is used")
    own = {"add_generation_prompt": True, "bos_token": bos, "eos_token": eos}
    try:
        text = render(template, TALK, {}, own=own).text
    except InvalidRequest:
        # Some refuse to be told by a system.
        text = render(template, TALK[1:], {}, own=own).text
    say(f"\n{text}")


def run_by_name(config: Config, model: str, asked: str | None, say: Callable[[str], None]) -> None:
    """The same for a model of the catalogue. Raises ConfigError too."""
    catalog = read_catalog(config)
    found = catalog.models[catalog.resolve(model)]
    run(found.path, found.template, asked, say)


def known(header: Header, path: Path) -> Known:
    """What the header says of templates."""
    names = tuple(dict.fromkeys((header.name, path.stem)))
    return Known(
        header.template, header.tool_template, header.document_template, names, header.architecture
    )
