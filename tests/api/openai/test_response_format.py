"""What shape an answer must have, by all the names that there are for it."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.api.errors import invalid
from server.api.openai.response_format import AnswerFormat, choice_grammar
from server.errors import InvalidRequest
from server.ipc import Grammar

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"b": {}, "a": {"const": "é"}}}
SOURCE = json.dumps(SCHEMA)


def read(**body: object) -> Grammar | None:
    """As a route reads it. Raises what it would answer."""
    try:
        return AnswerFormat.model_validate(body).answer_grammar
    except ValidationError as error:
        raise invalid(error) from error


def json_schema(**fields: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", **fields}}


@pytest.mark.parametrize(
    "body", [{}, {"response_format": {"type": "text"}}, {"grammar": "", "guided_regex": ""}]
)
def test_any_text(body: dict[str, Any]) -> None:
    assert read(**body) is None


JSON_OBJECT = "structured_outputs.json_object"
ANY_OBJECT = '{"type": "object"}'

ASKED: list[tuple[dict[str, Any], Grammar]] = [
    (
        {"response_format": {"type": "json_object"}},
        Grammar("json_schema", ANY_OBJECT, "response_format.schema"),
    ),
    (
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        Grammar("json_schema", SOURCE, "response_format.schema"),
    ),
    (
        {"response_format": json_schema(schema=SCHEMA, strict=True, description="What.")},
        Grammar("json_schema", SOURCE, "response_format.json_schema.schema"),
    ),
    (
        {"response_format": json_schema(strict=False)},
        Grammar("json_schema", ANY_OBJECT, "response_format.json_schema.schema"),
    ),
    ({"regex": "a+"}, Grammar("regex", "a+", "regex")),
    ({"grammar": 'root ::= "a"'}, Grammar("gbnf", 'root ::= "a"', "grammar")),
    ({"lark": 'start: "a"'}, Grammar("lark", 'start: "a"', "lark")),
    ({"json_schema": SCHEMA}, Grammar("json_schema", SOURCE, "json_schema")),
    ({"guided_json": SCHEMA}, Grammar("json_schema", SOURCE, "guided_json")),
    ({"guided_json": SOURCE}, Grammar("json_schema", SOURCE, "guided_json")),
    ({"guided_regex": "a+"}, Grammar("regex", "a+", "guided_regex")),
    ({"guided_grammar": 'root ::= "a"'}, Grammar("gbnf", 'root ::= "a"', "guided_grammar")),
    ({"guided_choice": ["a", "b."]}, Grammar("regex", r"(a)|(b\.)", "guided_choice")),
    *(
        ({"structured_outputs": {name: value}}, grammar)
        for name, value, grammar in (
            ("json", SCHEMA, Grammar("json_schema", SOURCE, "structured_outputs.json")),
            ("json_object", True, Grammar("json_schema", ANY_OBJECT, JSON_OBJECT)),
            ("regex", "a+", Grammar("regex", "a+", "structured_outputs.regex")),
            ("choice", ["a"], Grammar("regex", "(a)", "structured_outputs.choice")),
            ("grammar", "g", Grammar("gbnf", "g", "structured_outputs.grammar")),
        )
    ),
]


@pytest.mark.parametrize(("body", "grammar"), ASKED)
def test_what_is_asked_for(body: dict[str, Any], grammar: Grammar) -> None:
    assert read(**body) == grammar
    assert read(**{"response_format": {"type": "text"}, **body}) == grammar


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4), st.text(max_size=8))
def test_choices_are_taken_literally(choices: list[str], other: str) -> None:
    source = choice_grammar(tuple(choices), "x").source
    for text in (*choices, other):
        assert bool(re.fullmatch(source, text)) == (text in choices)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"response_format": "json"}, "response_format", 'got "json"'),
    ({"response_format": {}}, "response_format.type", "Field required"),
    ({"response_format": {"type": "xml"}}, "response_format.type", 'got "xml"'),
    (
        {"response_format": {"type": "json_schema"}},
        "response_format.json_schema",
        "required by this type",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        "response_format.json_schema.name",
        "Field required",
    ),
    (
        {"response_format": json_schema(name="a b")},
        "response_format.json_schema.name",
        "should match pattern",
    ),
    (
        {"response_format": json_schema(schema="{}")},
        "response_format.json_schema.schema",
        'got "{}"',
    ),
    ({"guided_json": "{"}, "guided_json", "not JSON: Expecting property name"),
    ({"structured_outputs": {"json": "[]"}}, "structured_outputs.json", "is a JSON object"),
    ({"guided_choice": []}, "guided_choice", "at least 1"),
    ({"structured_outputs": {"xml": "a"}}, "structured_outputs.xml", "not permitted"),
    (
        {"response_format": json_schema(), "regex": "a"},
        "regex",
        "only one field may shape the answer, and response_format.json_schema.schema does",
    ),
    ({"grammar": "a", "lark": "b"}, "lark", "and grammar does"),
    ({"guided_json": SCHEMA, "json_schema": SCHEMA}, "guided_json", "and json_schema does"),
    (
        {"structured_outputs": {"regex": "a", "grammar": "b"}},
        "structured_outputs.grammar",
        "and structured_outputs.regex does",
    ),
]


@pytest.mark.parametrize(("body", "param", "message"), BAD)
def test_what_is_wrong(body: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**body)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
    assert message in caught.value.message
