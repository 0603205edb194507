"""Texts as grammars, and what of a schema is kept where it is not strict."""

import pytest

from server.chat.lark import Pattern, Spelling, arguments, escape, regex, relaxed, up_to
from server.chat.turn import Tool
from server.errors import InvalidRequest
from tests.chat.matching import accepts


def test_texts_become_tokens_and_strings() -> None:
    spelling = Spelling({"<|a|>": None, "[B]": 7, "[B": None})
    assert spelling.text("x", "y<|a|>z", "[B]") == '"xy" <|a|> "z" <[7]>'
    assert spelling.text("") == ""
    assert spelling.text("a", Pattern("[0-9/]+", "1"), "b") == r'"a" /[0-9\/]+/ "b"'


def test_a_token_without_an_id() -> None:
    with pytest.raises(InvalidRequest, match=r"id of the token \[B\] is not known") as caught:
        Spelling({"[B]": None}).text("[B]")
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize("text", ['"', "\\", "\n", "/", "#", "é", "\t\x01", "%json {}"])
def test_any_text_is_taken_to_the_letter(text: str) -> None:
    lark = f"start: {Spelling({}).text(text)}"
    assert accepts(lark, text)
    assert not accepts(lark, text + "x")


@pytest.mark.parametrize(("source", "text"), [("a/b", "a/b"), (r"a\/b", "a/b"), ("a\nb", "a\nb")])
def test_regexes(source: str, text: str) -> None:
    assert accepts(f"start: {regex(source)}", text)


@pytest.mark.parametrize("text", [r"\\.+*?()|[]{}^$#&~-<>/", "a\nb", "｜▁é"])  # noqa: RUF001
def test_any_text_as_a_regex(text: str) -> None:
    lark = f"start: {regex(escape(text))}"
    assert accepts(lark, text)
    assert not accepts(lark, "a")


def test_up_to_the_first_mark() -> None:
    lark = f'start: head "x"\nhead[lazy]: {up_to("</a>.")}'
    assert accepts(lark, "b</a>c</a>.x")
    assert not accepts(lark, "b</a>.c</a>.x")


def test_a_relaxed_schema_keeps_what_can_be_enforced() -> None:
    schema: dict[str, object] = {
        "type": "object",
        "title": "T",
        "properties": {
            "pattern": {"type": "string", "pattern": "^a", "format": "odd", "maxLength": 9},
            "n": {"oneOf": [{"type": "integer", "minimum": 3, "maximum": "9"}, {"type": "null"}]},
            "long": {"minLength": -1, "maxLength": 10_000_000, "maxItems": True},
            "list": {"type": "array", "items": {"enum": [1, 2], "x-a": 1}, "uniqueItems": True},
            "odd": {"type": "any"},
            "any": "text",
            "none": False,
        },
        "required": ["pattern"],
        "additionalProperties": False,
        "items": 7,
        "if": {},
    }
    assert relaxed(schema) == {
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "maxLength": 9},
            "n": {"anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}]},
            "long": {},
            "list": {"type": "array", "items": {"enum": [1, 2]}},
            "odd": {},
            "any": True,
            "none": False,
        },
        "required": ["pattern"],
        "additionalProperties": False,
    }


def test_strict_arguments_are_held_to_the_letter() -> None:
    parameters = {"properties": {"a": {"type": "string", "pattern": "^b$"}}, "required": ["a"]}
    loose = f"start: {arguments(Tool('f', None, parameters))}"
    strict = f"start: {arguments(Tool('f', None, parameters, strict=True))}"
    assert accepts(loose, '{"a":"c"}')
    assert accepts(strict, '{"a":"b"}')
    assert not accepts(strict, '{"a":"c"}')
    assert not accepts(loose, '{"a":1}')
    assert not accepts(loose, "[]")


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object", "properties": {}}])
@pytest.mark.parametrize("strict", [True, False])
def test_a_tool_that_lists_no_parameters_has_none(
    parameters: dict[str, object] | None, strict: bool
) -> None:
    lark = f"start: {arguments(Tool('f', None, parameters, strict))}"
    assert accepts(lark, "{}")
    assert not accepts(lark, '{"a":1}')
    assert not accepts(lark, "1")


def test_a_tool_may_take_any_object() -> None:
    lark = f"start: {arguments(Tool('f', None, {'additionalProperties': True}))}"
    assert accepts(lark, '{"a":1}')
    assert not accepts(lark, "1")
