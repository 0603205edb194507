"""Which template a model's messages are written with, and why."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from server.chat.families import SHIPPED, family_of
from server.chat.template import Template, compile_template, render
from server.errors import InvalidRequest

PACKAGE = Path(__file__).parents[1]

TEMPLATE_FOLDERS = (PACKAGE / "templates", PACKAGE.parent / "templates")
"""Where named templates lie: in a wheel, in a checkout."""

NAME = re.compile(r"[\w.-]+")
"""What may name a template of the folders, in a request."""

Origin = Literal["request", "configuration", "GGUF", "family"]

SAID = {"role": "user", "content": "q-user"}
ANSWERED = {"role": "assistant", "content": "q-answer"}


class Known(NamedTuple):
    """What a GGUF says of the templates of its model. The header and a worker both tell."""

    template: str | None
    tool_template: str | None
    """The one for conversations with tools, where there is one beside the other."""
    document_template: str | None
    """The one for conversations about documents."""
    names: tuple[str, ...]
    """Of the model and of its file."""
    architecture: str


class Choice(NamedTuple):
    """A template's source and where it is from."""

    source: str
    origin: Origin
    reason: str
    name: str | None = None
    """If it is one of templates/."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings that belong to the template."""
        return SHIPPED[self.name].stops if self.name in SHIPPED else ()


def choose(
    known: Known,
    configured: str | None = None,
    asked: str | None = None,
    tools: bool = False,
    documents: bool = False,
) -> Choice:
    """The first of: what the request asks for, the configured one, the GGUF's, the family's.

    `tools` and `documents`: whether the conversation has any. Raises InvalidRequest where there is
    no template, or where one is named that does not exist.
    """
    if asked is not None:
        if is_jinja(asked):
            return Choice(asked, "request", "a template of the request's own")
        return Choice(_shipped(asked), "request", "named by the request", asked)
    if configured is not None:
        return _configured(configured)
    if own := _own(known, tools, documents):
        return own
    found = family_of(known.names, known.architecture)
    if found is None:
        raise InvalidRequest(
            "the model's GGUF carries no chat template, and neither its name "
            f"({', '.join(map(repr, known.names))}) nor its architecture "
            f"({known.architecture or 'unknown'}) tells which one it was trained with: set "
            "`template` of this model in the configuration to a .jinja file or a name of "
            f"templates/ ({', '.join(names())}), name one in `chat_template`, or use "
            "/v1/completions",
            param="messages",
        )
    family, by = found
    reason = f"the GGUF has none, and models of this family are known by {by}"
    return Choice(_shipped(family.template), "family", reason, family.template)


def _own(known: Known, tools: bool, documents: bool) -> Choice | None:
    """The GGUF's: the one for the conversation, else the plain one, else any."""
    for_tools = Choice(known.tool_template or "", "GGUF", "the GGUF's own, for tools")
    for_documents = Choice(known.document_template or "", "GGUF", "the GGUF's own, for documents")
    plain = Choice(known.template or "", "GGUF", "the GGUF's own")
    wanted = [for_tools] * tools + [for_documents] * documents
    return next((own for own in (*wanted, plain, for_tools, for_documents) if own.source), None)


def is_jinja(template: str) -> bool:
    """Whether a request's `chat_template` is a template itself, not a name."""
    return NAME.fullmatch(template) is None


@cache
def names() -> tuple[str, ...]:
    """The templates that can be named."""
    return tuple(
        sorted({path.stem for folder in TEMPLATE_FOLDERS for path in folder.glob("*.jinja")})
    )


def _shipped(name: str) -> str:
    """The source of a named template. Raises InvalidRequest."""
    # Not by a look at the disk: what is asked for may be any path.
    if name not in names():
        raise InvalidRequest(
            f"chat_template: there is no template {name!r}; those that can be named are "
            f"{', '.join(names())}",
            param="chat_template",
        )
    return _read(name)


def _configured(template: str) -> Choice:
    name = None if template.endswith(".jinja") else template
    return Choice(_read(template), "configuration", "`template` of the configuration", name)


def _read(template: str) -> str:
    """The source of a template: a path to a .jinja file or a name of templates/."""
    if template.endswith(".jinja"):
        places = (Path(template).expanduser(),)
    else:
        places = tuple(folder / f"{template}.jinja" for folder in TEMPLATE_FOLDERS)
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    looked = " and ".join(str(place) for place in places)
    raise InvalidRequest(
        f"the configured chat template {template!r} does not exist: looked at {looked}",
        param="messages",
    )


def written(template: Template, bos: str, eos: str, messages: Sequence[dict[str, str]]) -> str:
    """A conversation as a template writes it down without asking for more; empty if refused."""
    own = {"add_generation_prompt": False, "bos_token": bos, "eos_token": eos}
    try:
        return render(template, messages, {}, own=own).text
    except InvalidRequest:
        return ""


def recognised(choice: Choice, template: Template, bos: str, eos: str) -> Choice:
    """The choice with the name of the shipped template that writes the same, if one does."""
    if choice.name is not None:
        return choice
    talk = [SAID, ANSWERED, SAID]
    text = written(template, bos, eos, talk)
    for name in names() if text else ():
        if written(compile_template(_read(name)), bos, eos, talk) == text:
            return choice._replace(name=name)
    return choice


def end_marker(template: Template, bos: str, eos: str) -> str:
    """What stands after an answer, up to its first line break; empty: nothing does."""
    _, _, after = written(template, bos, eos, [SAID, ANSWERED]).rpartition("q-answer")
    return after.strip().partition("\n")[0]


def end_warning(marker: str, ends: Sequence[str], stops: Sequence[str]) -> str | None:
    """What is wrong with the end of answers, if something is. `ends`: tokens that end them."""
    if any(marker.startswith(end) for end in ends if end):
        return None
    known = ", ".join(ends) or "none"
    if not marker:
        return f"the chat template ends answers with nothing; tokens that end them: {known}"
    stopped = "; it is a stop string instead" if marker.startswith(tuple(stops) or "\0") else ""
    return (
        f"the chat template ends answers with {marker!r}, which no token of this model that "
        f"ends a generation begins ({known}){stopped}"
    )
