"""Messages as templates expect them."""

from typing import Any

import pytest

from server.api.openai.messages import Message, for_template
from server.errors import InvalidRequest

CALL = {
    "id": "call_a",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Łódź"}'},
}
PARSED = {**CALL, "function": {"name": "weather", "arguments": {"city": "Łódź"}}}


def read(*messages: dict[str, Any]) -> list[Any]:
    return for_template([Message.model_validate(message) for message in messages])


def test_nothing_is_null_but_the_content_beside_calls() -> None:
    told = read(
        {"role": "user", "content": "Hi", "name": None, "tool_calls": None, "tool_call_id": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "assistant", "content": "Wait.", "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": []},
    )
    assert told == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [PARSED]},
        {"role": "assistant", "content": "Wait.", "tool_calls": [PARSED]},
        {"role": "assistant", "content": ""},
    ]


def test_other_fields_are_kept() -> None:
    told = read({"role": "user", "content": "Hi", "name": "Bo", "mood": "good"})
    assert told == [{"role": "user", "content": "Hi", "name": "Bo", "mood": "good"}]


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [
        ('{"city": "Łódź"}', {"city": "Łódź"}),
        ({"city": "Łódź"}, {"city": "Łódź"}),
        ("", {}),
        (None, None),
        # What a model wrote wrongly is still shown to it.
        ('{"city":', '{"city":'),
    ],
)
def test_arguments_are_parsed(arguments: object, parsed: object) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    (told,) = read({"role": "assistant", "tool_calls": [call]})
    assert told["tool_calls"][0]["function"] == {"name": "f", "arguments": parsed}


def test_results() -> None:
    told = read(
        {"role": "tool", "tool_call_id": "call_b", "content": "noon"},
        {"role": "tool", "tool_call_id": "call_a", "content": [{"type": "text", "text": "sun"}]},
        {"role": "tool", "tool_call_id": "call_a", "name": "mine", "content": "rain"},
    )
    assert told == [
        {"role": "tool", "tool_call_id": "call_b", "content": "noon"},
        {"role": "tool", "tool_call_id": "call_a", "content": "sun"},
        {"role": "tool", "tool_call_id": "call_a", "name": "mine", "content": "rain"},
    ]


def test_a_result_needs_the_id_of_its_call() -> None:
    with pytest.raises(InvalidRequest, match="needs the id of the call") as caught:
        read({"role": "user", "content": "Hi"}, {"role": "tool", "content": "sun"})
    assert caught.value.param == "messages.1.tool_call_id"


def test_the_form_before_becomes_calls_and_results() -> None:
    function = {"name": "weather", "arguments": '{"city": "Łódź"}'}
    told = read(
        {"role": "assistant", "content": None, "function_call": function},
        {"role": "function", "name": "weather", "content": "sun"},
        {"role": "assistant", "content": "So?", "function_call": function},
        {"role": "function", "name": "weather", "content": "rain"},
    )
    assert told == [
        {"role": "assistant", "content": None, "tool_calls": [{**PARSED, "id": "call_1"}]},
        {"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": "sun"},
        {"role": "assistant", "content": "So?", "tool_calls": [{**PARSED, "id": "call_2"}]},
        {"role": "tool", "tool_call_id": "call_2", "name": "weather", "content": "rain"},
    ]


def test_thoughts_have_two_names() -> None:
    told = read({"role": "assistant", "content": "4", "reasoning": "2 + 2"})
    assert told[0]["reasoning_content"] == told[0]["reasoning"] == "2 + 2"
    both = {"role": "assistant", "content": "4", "reasoning": "a", "reasoning_content": "b"}
    assert read(both)[0]["reasoning_content"] == "b"
