"""Functionary's two versions."""

import json

import pytest

from server.chat.dialects.functionary import V31, V32
from tests.chat.answers import answering, read

ROME = ("call", "get_weather", '{"city": "Rome"}')


class TestV31:
    def test_code(self) -> None:
        [(_, name, found)] = read(V31, "<|python_tag|>print(1)")
        assert (name, json.loads(found)) == ("python", {"code": "print(1)"})

    @pytest.mark.parametrize("text", ["<function=", "<function=f", "<function=f>x"])
    def test_what_is_no_call(self, text: str) -> None:
        assert read(V31, text) == [("content", text)]


class TestV32:
    def test_text_and_calls(self) -> None:
        text = 'all\nI look.\n>>>get_weather\n{"city": "Rome"}\n>>>get_weather\n{"city": "Rome"}'
        assert read(V32, text) == [("content", "I look."), ROME, ROME]

    def test_recipients_that_are_none(self) -> None:
        text = "all\nType:\n>>> print(1)\n>>>x\n{}"
        assert read(V32, text) == [("content", text.removeprefix("all\n").replace("\n>>>", ">>>"))]

    def test_text_after_a_call(self) -> None:
        assert read(V32, 'get_weather\n{"city": "Rome"} so') == [ROME, ("content", "so")]

    def test_without_tools(self) -> None:
        assert read(V32, "all\n1 >>>get_weather\n{}", answering(())) == [
            ("content", "1 >>>get_weather\n{}")
        ]

    @pytest.mark.parametrize("text", ["al", "Hello", "unknown\n{}"])
    def test_no_recipient(self, text: str) -> None:
        assert read(V32, text) == [("content", text)]
