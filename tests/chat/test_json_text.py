"""JSON read from a feed: what is passed on, when, and what is no call."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.chat.json_text import Keys, read_call, read_calls
from server.chat.parser import Feed, Reading, StreamParser, until
from server.chat.turn import CallArguments, CallBegin, Content
from tests.chat.answers import Folded, read_every_way

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def reader(
    known: frozenset[str] | None = None, many: bool = False
) -> Callable[[Feed], Reading[None]]:
    def read(feed: Feed) -> Reading[None]:
        calls = read_calls if many else read_call
        if not (yield from calls(feed, Keys(), known)):
            feed.at = 0
        feed.commit()
        yield from until(feed, (), Content)

    return read


def read(text: str, known: frozenset[str] | None = None, many: bool = False) -> Folded:
    return read_every_way(lambda: StreamParser(reader(known, many)), text)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f", "arguments": {"a": "}\\"{"}}',
        '{"arguments": {"a": "}\\"{"}, "name": "f"}',
        '{"type":"function","name":"f","parameters":{"a": "}\\"{"}}',
        ' \n{ "name" : "f" ,\n"arguments" : {"a": "}\\"{"} , "id": "x" }'.strip(),
        '{"name": "f", "arguments": "{\\"a\\": \\"}\\\\\\"{\\"}"}',
    ],
)
def test_a_call_in_any_order(text: str) -> None:
    assert read(text) == [("call", "f", '{"a": "}\\"{"}')]


@pytest.mark.parametrize("text", ['{"name": "f"}', '{"name": "f", "arguments": null}'])
def test_no_arguments(text: str) -> None:
    assert read(text) == [("call", "f", "{}")]


@pytest.mark.parametrize(
    "text",
    ["", "x", "{", '{"a": 1}', '{"name": 1}', '{"name"}', '{"name": "f', "{]", '{"a": [', "[1]"],
)
def test_what_is_no_call(text: str) -> None:
    assert read(text) == ([("content", text)] if text else [])


def test_only_known_names_with_arguments() -> None:
    known = frozenset({"f"})
    assert read('{"name": "f", "arguments": {}}', known) == [("call", "f", "{}")]
    for text in ('{"name": "g", "arguments": {}}', '{"name": "f"}'):
        assert read(text, known) == [("content", text)]


def test_an_array() -> None:
    text = '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": [1]}]x'
    assert read(text, many=True) == [("call", "f", "{}"), ("call", "g", "[1]"), ("content", "x")]


def test_an_array_that_breaks_off() -> None:
    text = '[{"name": "f", "arguments": {"a": 1}}, {"na'
    assert read(text, many=True)[0] == ("call", "f", '{"a": 1}')


def test_arguments_come_as_they_are_generated() -> None:
    parser = StreamParser(reader())
    assert parser.push('{"name": "f", "arguments": ') == []
    begin, first = parser.push('{"ci')
    assert isinstance(begin, CallBegin)
    assert (begin.index, begin.name) == (0, "f")
    assert first == CallArguments(0, '{"ci')
    assert parser.push('ty": "Bo') == [CallArguments(0, 'ty": "Bo')]
    assert parser.push('nn"}') == [CallArguments(0, 'nn"}')]
    assert parser.push("}") == []
    assert parser.finish() == []


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3), st.booleans())
def test_any_arguments(arguments: dict[str, Any], ascii: bool) -> None:
    text = json.dumps({"name": "f", "arguments": arguments}, ensure_ascii=ascii)
    [(kind, name, found)] = read(text)
    assert (kind, name, json.loads(found)) == ("call", "f", arguments)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.sampled_from(["name", "arguments", "parameters", "x"]), JSON))
def test_any_object(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    found = read(text)
    if isinstance(value.get("name"), str):
        assert found[0][0] == "call"
    else:
        assert found == [("content", text)]
