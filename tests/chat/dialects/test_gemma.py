"""Gemma's own form of arguments, made JSON."""

import json

import pytest

from server.chat.dialects.gemma import DIALECT, FUNCTION
from tests.chat.answers import read

Q = '<|"|>'


def arguments(text: str) -> object:
    [(kind, name, found)] = read(DIALECT, f"<|tool_call>call:get_weather{text}<tool_call|>")
    assert (kind, name) == ("call", "get_weather")
    return json.loads(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", {}),
        (f"{{city:{Q}Rome{Q}}}", {"city": "Rome"}),
        (f'{{city:{Q}a {{b}}, "c"\n{Q},days:3}}', {"city": 'a {b}, "c"\n', "days": 3}),
        (f"{{a:[1,{Q}x{Q},{{{Q}k{Q}:true}}],b:null}}", {"a": [1, "x", {"k": True}], "b": None}),
        ("{ a : { b : [] , c : -1.5 } }", {"a": {"b": [], "c": -1.5}}),
        ("{a:word}", {"a": "word"}),
        ('{"city": "Rome"}', {"city": "Rome"}),
    ],
)
def test_arguments(text: str, expected: object) -> None:
    assert arguments(text) == expected


@pytest.mark.parametrize(
    ("text", "came"),
    [
        (f"{{city:{Q}Ro", '{"city": "Ro'),
        ("{city", '{"city"'),
        ("{", "{"),
        ("{a:[1,", '{"a": [1'),
    ],
)
def test_a_call_that_is_cut_off(text: str, came: str) -> None:
    found = read(DIALECT, f"<|tool_call>call:f{text}")
    assert found == [("call", "f", came)]


def test_junk_is_passed_over() -> None:
    assert arguments("{a:]1}") == {"a": None, "1": None}
    assert arguments("{,a}") == {"": None, "a": None}


@pytest.mark.parametrize("text", ["<|tool_call>", "<|tool_call>call:", "<|tool_call>call:f x"])
def test_what_is_no_call(text: str) -> None:
    assert read(DIALECT, text) == [("content", text)]


def test_function_gemma() -> None:
    text = "<start_function_call>call:f{a:<escape>x<escape>}<end_function_call>"
    assert read(FUNCTION, text) == [("call", "f", '{"a": "x"}')]
