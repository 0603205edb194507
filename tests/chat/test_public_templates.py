"""The public templates of the families: what is rendered, what is read, whatever way it is cut.

The templates are others', so only digests of what they render are kept, in `goldens.json`, beside
fragments that must be there. `CORRAL_RENEW_GOLDENS=1` writes the digests anew.
"""

import datetime
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.chat import template as template_module
from server.chat.dialect import Call
from server.chat.format import ChatFormat, chat_format
from server.chat.turn import Plan, Tool, ToolChoice, Turn
from server.config import ModelConfig
from tests.api.scripted import INFO
from tests.chat.answers import read_every_way
from tests.chat.families import ASKS, FAMILIES, OSLO, Family
from tests.chat.matching import accepts

GOLDENS = Path(__file__).with_name("goldens.json")
RENEW = os.environ.get("CORRAL_RENEW_GOLDENS") == "1"

WEATHER = Tool(
    "get_weather",
    "The weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Its name"}},
        "required": ["city"],
    },
)


def call(id: str, city: str) -> dict[str, object]:
    function = {"name": "get_weather", "arguments": {"city": city}}
    return {"id": id, "type": "function", "function": function}


CONVERSATION: list[dict[str, object]] = [
    {"role": "system", "content": "Be terse."},
    {"role": "user", "content": "How is Bonn? And Rome?"},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Two cities.",
        "tool_calls": [call("call_1", "Bonn"), call("call_2", "Rome")],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    {"role": "tool", "tool_call_id": "call_2", "content": "sunshine"},
    {"role": "assistant", "content": "Wet and dry."},
    {"role": "user", "content": "And Oslo?"},
]
SAID = ("Be terse.", "And Rome?", "get_weather", "The weather of a city", "Bonn", "Rome", "rain",
        "sunshine", "Wet and dry.", "And Oslo?")  # fmt: skip

EACH = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.file)


class _Day(datetime.datetime):
    """A day that stands still: templates write today's date."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "_Day":
        return cls(2025, 1, 2, tzinfo=tz)


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_module, "datetime", _Day)


@pytest.fixture(scope="module")
def goldens() -> Iterator[dict[str, str]]:
    """Digests by template; written back where they are to be renewed."""
    digests: dict[str, str] = json.loads(GOLDENS.read_text())
    yield digests
    if RENEW:
        GOLDENS.write_text(json.dumps(dict(sorted(digests.items())), indent=2) + "\n")


def format_of(family: Family, folder: Path) -> ChatFormat:
    source = (folder / f"{family.file}.jinja").read_text(encoding="utf-8")
    info = replace(INFO, template=source, special=(), bos="<s>", eos="</s>")
    return chat_format(ModelConfig(path=Path("model.gguf")), info)


def plan(family: Family, folder: Path, choice: ToolChoice | None = None) -> Plan:
    turn = Turn(CONVERSATION, (WEATHER,), choice or ToolChoice(), variables=family.variables)
    return format_of(family, folder).plan(turn)


@EACH
def test_the_dialect(family: Family, public_templates: Path) -> None:
    assert format_of(family, public_templates).dialect.name == family.dialect


@EACH
def test_the_prompt(family: Family, public_templates: Path, goldens: dict[str, str]) -> None:
    prompt = plan(family, public_templates).prompt.text
    assert [text for text in SAID if text not in prompt] == []
    assert prompt.endswith(family.end)
    assert family.shown in prompt
    assert "None" not in prompt
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    if RENEW:
        goldens[family.file] = digest
    assert digest == goldens[family.file]


@EACH
def test_the_answer(family: Family, public_templates: Path) -> None:
    parser = plan(family, public_templates).parser
    assert read_every_way(parser, family.answer) == family.parts


@EACH
def test_a_required_call_is_enforced(family: Family, public_templates: Path) -> None:
    found = plan(family, public_templates, ToolChoice("required"))
    assert found.grammar
    dialect = format_of(family, public_templates).dialect
    thinks = next((text for kind, text, *_ in family.parts if kind == "reasoning"), None)
    written = dialect.write([Call("get_weather", OSLO)])
    if thinks and family.end == "<think>\n":
        written = f"{thinks}\n</think>\n\n{written}"
    assert accepts(found.grammar.source, written)
    assert not accepts(found.grammar.source, written.replace("get_weather", "get_whether"))
    assert read_every_way(found.parser, written)[-1] == ASKS[0]


@pytest.mark.parametrize(
    "family",
    # The others are for use with tools only.
    [
        family
        for family in FAMILIES
        if "tool_use" not in family.file and family.dialect != "functionary_v31"
    ],
    ids=lambda family: family.file,
)
def test_without_tools(family: Family, public_templates: Path) -> None:
    found = format_of(family, public_templates).plan(Turn([{"role": "user", "content": "Hi"}]))
    assert found.grammar is None
    assert "get_weather" not in found.prompt.text


TAKING = (
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "ibm-granite-granite-3.3-2B-Instruct",
    "ibm-granite-granite-4.0",
)


@EACH
def test_documents(family: Family, public_templates: Path) -> None:
    chat = format_of(family, public_templates)
    assert chat.adapt.can.documents is (family.file in TAKING)
    if chat.adapt.can.documents:
        document = {"title": "Of Bonn", "text": "It rains in Bonn."}
        text = chat.prompt(CONVERSATION[:2], documents=[document]).text
        assert text.count("It rains in Bonn.") == 1
