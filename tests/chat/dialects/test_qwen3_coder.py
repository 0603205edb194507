"""Calls as XML-like tags, made JSON by the types of the parameters."""

import json

import pytest

from server.chat.dialects.qwen3_coder import DIALECT, SEED
from server.chat.turn import Tool
from tests.chat.answers import answering, read

EDIT = Tool(
    "edit",
    None,
    {
        "properties": {
            "text": {"type": "string"},
            "line": {"type": "integer"},
            "wrap": {"type": "boolean"},
            "tags": {"type": "array"},
            "any": True,
        }
    },
)


def arguments(*parameters: tuple[str, str], name: str = "edit") -> object:
    body = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters)
    text = f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"
    [(kind, called, found)] = read(DIALECT, text, answering((EDIT,)))
    assert (kind, called) == ("call", name)
    return json.loads(found)


@pytest.mark.parametrize(
    "value", ["x", "", "a\nb", "  indented\n", '"quoted"', "1", "<b>é</b>", "\\", "</tool_call>"]
)
def test_texts_are_kept_to_the_letter(value: str) -> None:
    assert arguments(("text", value)) == {"text": value}


def test_other_types() -> None:
    given = [("line", "3"), ("wrap", "True"), ("tags", '["a"]'), ("any", "None"), ("new", "x y")]
    assert arguments(*given) == {
        "line": 3,
        "wrap": True,
        "tags": ["a"],
        "any": None,
        "new": "x y",
    }


def test_no_parameters() -> None:
    assert arguments() == {}
    assert arguments(("a", "1"), name="unknown") == {"a": 1}


def test_texts_come_as_they_are_generated() -> None:
    from server.chat.dialect import read_answer
    from server.chat.parser import StreamParser
    from server.chat.turn import CallArguments

    known = answering((EDIT,))
    parser = StreamParser(lambda feed: read_answer(feed, DIALECT, known))
    parser.push("<tool_call>\n<function=edit>\n<parameter=text>\nab")
    assert parser.push(' "c"') == [CallArguments(0, ' \\"c\\"')]
    assert parser.push("\n</param") == []
    assert parser.push("eter>") == [CallArguments(0, '"')]


def test_a_call_that_is_cut_off() -> None:
    text = "<tool_call>\n<function=edit>\n<parameter=text>\nab"
    assert read(DIALECT, text, answering((EDIT,))) == [("call", "edit", '{"text": "ab')]


@pytest.mark.parametrize("text", ["<tool_call>x", "<tool_call>\n<function=>", "<tool_call>"])
def test_what_is_no_call(text: str) -> None:
    assert read(DIALECT, text) == [("content", text)]


def test_values_on_the_same_line() -> None:
    text = "<seed:tool_call><function=edit><parameter=text>ab</parameter></function>"
    assert read(SEED, text, answering((EDIT,))) == [("call", "edit", '{"text": "ab"}')]
