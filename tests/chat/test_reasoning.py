"""Thoughts, split from the answer."""

import pytest

from server.chat.dialects import generic
from server.chat.reasoning import KNOWN, Thoughts, is_inside, thoughts_of
from tests.chat.answers import Folded, answering, read

THINK = Thoughts("<think>", "</think>")


def split(text: str, inside: bool = False, thoughts: Thoughts = THINK) -> Folded:
    return read(generic.DIALECT, text, answering((), thoughts, inside))


@pytest.mark.parametrize("thoughts", KNOWN, ids=lambda thoughts: thoughts.start)
def test_every_kind(thoughts: Thoughts) -> None:
    text = f"{thoughts.start}\nWell < now.\n{thoughts.end}\n\nYes"
    assert thoughts_of(f"... {thoughts.end} ...") == thoughts
    assert split(text, thoughts=thoughts) == [("reasoning", "Well < now."), ("content", "Yes")]


def test_no_thoughts() -> None:
    assert thoughts_of("{{ messages }}") is None
    assert split(" Yes <think> no") == [("content", " Yes <think> no")]


def test_the_prompt_has_begun_them() -> None:
    assert split("Well\n</think>\nYes", inside=True) == [("reasoning", "Well"), ("content", "Yes")]
    assert split("<think>Well</think>Yes", inside=True)[0] == ("reasoning", "Well")


def test_thoughts_without_an_end() -> None:
    assert split("<think>Well \n") == [("reasoning", "Well \n")]
    assert split("<think>") == []


def test_empty_thoughts() -> None:
    assert split("<think>\n\n</think>\n\nYes") == [("content", "Yes")]


@pytest.mark.parametrize(
    ("prompt", "begun", "inside"),
    [
        ("assistant\n<think>\n", "", True),
        ("assistant\n<think>\n\n</think>\n\n", "", False),
        ("<think>user wrote this, assistant\n", "", False),
        ("... <think>Well", "<think>Well", True),
        ("... <think>Well</think>Y", "<think>Well</think>Y", False),
        ("... Y", "Y", False),
    ],
)
def test_where_an_answer_begins(prompt: str, begun: str, inside: bool) -> None:
    assert is_inside(THINK, prompt, begun) is inside
    assert is_inside(None, prompt, begun) is False
