"""Llama 3: JSON, Python's way of calling, and code."""

import json

import pytest

from server.chat.dialects.llama3 import DIALECT
from tests.chat.answers import WEATHER, answering, read

CALL = '{"name": "get_weather", "parameters": {"city": "Rome"}}'
ROME = ("call", "get_weather", '{"city": "Rome"}')


@pytest.mark.parametrize(
    "text", [CALL, f"\n {CALL}", f"<|python_tag|>{CALL}", f"<|python_tag|> {CALL}\n"]
)
def test_json(text: str) -> None:
    assert read(DIALECT, text) == [ROME]


@pytest.mark.parametrize("between", ["; ", ";", "\n", ", "])
def test_several(between: str) -> None:
    assert read(DIALECT, CALL + between + CALL) == [ROME, ROME]


def test_text_after_a_call() -> None:
    assert read(DIALECT, f"{CALL}; and so on") == [ROME, ("content", "; and so on")]


@pytest.mark.parametrize(
    "text", ['{"name": "Ann", "parameters": {}}', '{"a": 1}', "{", f"So: {CALL}"]
)
def test_an_answer_that_looks_like_a_call(text: str) -> None:
    assert read(DIALECT, text) == [("content", text)]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('get_weather.call(city="Ro)me")', {"city": "Ro)me"}),
        ('get_weather.call(city="R", days=3, odd=x)', {"city": "R", "days": 3, "odd": "x"}),
        ("get_weather.call()", {}),
    ],
)
def test_pythons_way(text: str, arguments: object) -> None:
    [(_, name, found)] = read(DIALECT, f"<|python_tag|>{text}")
    assert (name, json.loads(found)) == ("get_weather", arguments)


@pytest.mark.parametrize("text", ['print("x")\n\nget_weather.call(', "unknown.call()", "f {"])
def test_code(text: str) -> None:
    [(_, name, found)] = read(DIALECT, f"<|python_tag|>{text}")
    assert (name, json.loads(found)) == ("python", {"code": text})


def test_code_that_no_tool_takes() -> None:
    text = "<|python_tag|>print(1)"
    assert read(DIALECT, text, answering((WEATHER,))) == [("content", text)]
