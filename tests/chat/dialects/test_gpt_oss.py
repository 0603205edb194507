"""Harmony: channels, recipients and what is left without a header."""

import pytest

from server.chat.dialects.gpt_oss import DIALECT, FINAL
from tests.chat.answers import answering, read

THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|>"
ARGUMENTS = '{"city": "Rome"}'
ROME = ("call", "get_weather", ARGUMENTS)


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>",
        " to=functions.get_weather<|channel|>commentary json<|message|>",
        "<|channel|>analysis to=functions.get_weather code<|message|>",
    ],
)
def test_a_call(header: str) -> None:
    assert read(DIALECT, f"{header}{ARGUMENTS}<|call|>") == [ROME]


def test_thoughts_a_preamble_and_a_call() -> None:
    text = (
        f"{THOUGHT}<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        f"<|start|>assistant<|channel|>commentary to=functions.get_weather<|message|>{ARGUMENTS}"
    )
    assert read(DIALECT, text) == [("reasoning", "Hm."), ("content", "I look."), ROME]


def test_an_answer() -> None:
    assert read(DIALECT, f"{THOUGHT}<|start|>assistant{FINAL}Yes.<|return|>") == [
        ("reasoning", "Hm."),
        ("content", "Yes."),
    ]


def test_without_tools_a_call_is_text() -> None:
    text = f"<|channel|>commentary to=functions.f<|message|>{ARGUMENTS}"
    assert read(DIALECT, text, answering(())) == [("content", ARGUMENTS)]


@pytest.mark.parametrize("text", ["Plain.", "to=", "to=me", "<|", "assistant"])
def test_no_header(text: str) -> None:
    assert read(DIALECT, text) == [("content", text)]


def test_cut_off_in_a_header() -> None:
    assert read(DIALECT, f"{THOUGHT}<|start|>assistant<|chan") == [("reasoning", "Hm.")]
