"""Items to messages, and which of them may be left out."""

from typing import Any

import pytest

from server.api.openai.responses.items import kept_items
from server.api.openai.responses.messages import droppable, to_messages, without


def messages(*items: dict[str, Any], instructions: str | None = None) -> list[dict[str, object]]:
    return to_messages(instructions, kept_items(items))


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def called(id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": f"f_{id}", "arguments": arguments}


def returned(id: str, text: str = "ok") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": text}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}]}


def test_parts_are_lines() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert messages({"role": "user", "content": parts}) == [said("user", "a\nb")]


def test_instructions_come_first() -> None:
    assert messages(said("user", "Hi"), instructions="Be terse.") == [
        said("developer", "Be terse."),
        said("user", "Hi"),
    ]


def test_what_systems_say_at_the_beginning_is_one_message() -> None:
    items = [said("system", "b"), said("developer", "c"), said("user", "Hi"), said("system", "d")]
    assert messages(*items, instructions="a") == [
        said("developer", "a\n\nb\n\nc"),
        said("user", "Hi"),
        said("system", "d"),
    ]


def test_an_assistants_turn_is_one_message() -> None:
    items = [
        said("user", "Hi"),
        thought("Hm."),
        said("assistant", "Let me see."),
        called("a", '{"x": 1}'),
        called("b", "{bad"),
        returned("a"),
        returned("b", "no"),
    ]
    assert messages(*items) == [
        said("user", "Hi"),
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "f_a", "arguments": {"x": 1}},
                },
                {"id": "b", "type": "function", "function": {"name": "f_b", "arguments": "{bad"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "name": "f_a", "content": "ok"},
        {"role": "tool", "tool_call_id": "b", "name": "f_b", "content": "no"},
    ]


def test_calls_without_a_word() -> None:
    (message,) = messages(called("a"))
    assert message["content"] is None


def test_each_turn_thinks_for_itself() -> None:
    one, result, other = messages(thought("1"), called("a"), returned("a"), thought("2"))[:3]
    assert one["reasoning_content"] == "1" and result["role"] == "tool"
    assert other == {"role": "assistant", "content": "", "reasoning_content": "2"}


def test_thoughts_between_calls_begin_a_message() -> None:
    one, other = messages(thought("1"), called("a"), thought("2"), called("b"))
    assert (one["reasoning_content"], other["reasoning_content"]) == ("1", "2")


def test_thoughts_without_words_are_nothing() -> None:
    assert messages({"type": "reasoning", "summary": []}, said("user", "Hi")) == [
        said("user", "Hi")
    ]


def test_a_result_of_an_unknown_call_has_no_name() -> None:
    assert messages(returned("z")) == [{"role": "tool", "tool_call_id": "z", "content": "ok"}]


def test_custom_calls() -> None:
    items = [
        {"type": "custom_tool_call", "call_id": "a", "name": "patch", "input": "***"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": "done"},
    ]
    call, result = messages(*items)
    (function,) = [c["function"] for c in call["tool_calls"]]  # pyright: ignore
    assert function == {"name": "patch", "arguments": {"input": "***"}}
    assert result["content"] == "done"


S, U, A, T = "system", "user", "assistant", "tool"


@pytest.mark.parametrize(
    ("roles", "gaps"),
    [
        ([], []),
        ([S], []),
        ([U], []),
        ([A, T], []),
        ([S, U, A, U], [range(1, 3)]),
        ([U, A, U, A, U], [range(0, 2), range(2, 4)]),
        ([A, U], [range(0, 1)]),
        ([S, T, A, U, A, T, U], [range(1, 3), range(3, 6)]),
        # One task of a user's, many exchanges with tools: the task and the last one stay.
        ([S, U, A, T, A, T, T, A, T], [range(2, 4), range(4, 7)]),
    ],
)
def test_what_may_be_left_out(roles: list[str], gaps: list[range]) -> None:
    assert droppable([{"role": role} for role in roles]) == gaps


def test_leaving_out_keeps_instructions() -> None:
    roles = [S, U, A, S, A, U]
    left = without([{"role": role} for role in roles], [range(1, 5)])
    assert [message["role"] for message in left] == [S, S, U]
