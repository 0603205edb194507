"""Calls of functions by the real model, which knows no tools: whole, streamed, forced, cut off."""

import json
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageFunctionToolCall, ChatCompletionToolParam

from tests.e2e.asking import GREEDY, MODEL, Body, Messages, chat, chat_body, user
from tests.e2e.wire import error_of, events

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
TIME: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["UTC", "CET"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}
TOOLS = [WEATHER, TIME]
QUESTION = user("What is the weather in Paris?")


def check_call(name: str, arguments: str) -> None:
    """The arguments match the schema of the function."""
    given: Any = json.loads(arguments)
    if name == "get_weather":
        assert set(given) == {"city", "unit"}
        assert isinstance(given["city"], str)
        assert given["unit"] in ("celsius", "fahrenheit")
    else:
        assert name == "get_time"
        assert given in ({"zone": "UTC"}, {"zone": "CET"})


def calls(sdk: OpenAI, messages: Messages, body: Body) -> list[tuple[str, str]]:
    """Names and arguments of the calls that the only choice is."""
    (choice,) = chat(sdk, messages, {"tools": TOOLS, **body}).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    made = choice.message.tool_calls or []
    assert len({call.id for call in made}) == len(made)
    told: list[tuple[str, str]] = []
    for call in made:
        assert isinstance(call, ChatCompletionMessageFunctionToolCall)
        told.append((call.function.name, call.function.arguments))
    return told


def test_a_call_in_bagels_way(sdk: OpenAI, http: httpx.Client) -> None:
    body = {"chat_template": "bagel-chatml", "tool_choice": "required", "max_tokens": 300}
    for name, arguments in calls(sdk, QUESTION, {**GREEDY, **body}):
        check_call(name, arguments)
    shown = http.post(
        "/v1/apply-template", json=chat_body(QUESTION, {"tools": TOOLS, "documents": [], **body})
    ).json()["prompt"]
    assert "Input: What is the weather in Paris?\n\nAvailable functions:\n" in shown


@pytest.mark.parametrize("seed", range(4))
def test_a_call_is_required(sdk: OpenAI, seed: int) -> None:
    body = {"tool_choice": "required", "seed": seed, "temperature": 1.2, "max_tokens": 300}
    made = calls(sdk, QUESTION, body)
    assert made
    for name, arguments in made:
        check_call(name, arguments)


@pytest.mark.parametrize("name", ["get_weather", "get_time"])
def test_a_named_function(sdk: OpenAI, name: str) -> None:
    choice = {"type": "function", "function": {"name": name}}
    body = {**GREEDY, "tool_choice": choice, "parallel_tool_calls": False, "max_tokens": 200}
    ((called, arguments),) = calls(sdk, QUESTION, body)
    assert called == name
    check_call(called, arguments)


def test_allowed_functions(sdk: OpenAI) -> None:
    allowed = {
        "mode": "required",
        "tools": [{"type": "function", "function": {"name": "get_time"}}],
    }
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    body = {"tool_choice": choice, "parallel_tool_calls": False, "max_tokens": 200}
    ((called, arguments),) = calls(sdk, QUESTION, body)
    check_call(called, arguments)
    assert called == "get_time"


def test_the_stream_says_what_the_whole_answer_says(sdk: OpenAI) -> None:
    fixed = {"temperature": 0, "cache_prompt": False, "max_tokens": 300}
    whole = calls(sdk, QUESTION, {**fixed, "tool_choice": "required"})
    with sdk.chat.completions.stream(
        model=MODEL,
        messages=QUESTION,
        tools=TOOLS,
        tool_choice="required",
        extra_body=fixed,
    ) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_completion()
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    made = choice.message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in made] == whole
    # The arguments came in pieces.
    assert kinds.count("tool_calls.function.arguments.delta") > len(made)
    assert "content.delta" not in kinds


def test_deltas_on_the_wire(http: httpx.Client) -> None:
    body = {
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stream": True,
        "temperature": 0,
        "max_tokens": 200,
    }
    raw = http.post("/v1/chat/completions", json=chat_body(QUESTION, body)).content
    chunks = [json.loads(data)["choices"][0] for data in events(raw)[:-1]]
    role, first, *rest, end = [chunk["delta"] for chunk in chunks]
    assert role == {"role": "assistant", "content": None, "refusal": None}
    (call,) = first["tool_calls"]
    assert call["index"] == 0 and call["type"] == "function" and call["id"].startswith("call_")
    assert call["function"]["arguments"] == ""
    for delta in rest:
        ((index, function),) = [(c["index"], c["function"]) for c in delta["tool_calls"]]
        assert index == 0 and set(delta["tool_calls"][0]) == {"index", "function"}
        assert set(function) == {"arguments"} and function["arguments"]
    arguments = "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in rest)
    check_call(call["function"]["name"], arguments)
    assert (end, chunks[-1]["finish_reason"]) == ({}, "tool_calls")


def test_a_call_that_is_cut_off(sdk: OpenAI) -> None:
    body = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 14, **GREEDY}
    (choice,) = chat(sdk, QUESTION, body).choices
    assert choice.finish_reason == "length"


def test_the_form_before(sdk: OpenAI) -> None:
    functions = [tool["function"] for tool in TOOLS]
    body = {"functions": functions, "function_call": {"name": "get_time"}, "max_tokens": 200}
    (choice,) = chat(sdk, QUESTION, body).choices
    assert choice.finish_reason == "function_call"
    assert choice.message.tool_calls is None
    assert choice.message.function_call is not None
    assert choice.message.function_call.name == "get_time"
    check_call("get_time", choice.message.function_call.arguments)


def test_several_choices(sdk: OpenAI) -> None:
    body = {"tools": TOOLS, "tool_choice": "required", "n": 3, "seed": 3, "max_tokens": 300}
    answer = chat(sdk, QUESTION, body)
    for choice in answer.choices:
        for call in choice.message.tool_calls or []:
            assert isinstance(call, ChatCompletionMessageFunctionToolCall)
            check_call(call.function.name, call.function.arguments)
    assert [choice.finish_reason for choice in answer.choices] == ["tool_calls"] * 3


def test_no_call_is_wanted(sdk: OpenAI) -> None:
    body = {**GREEDY, "tools": TOOLS, "tool_choice": "none", "max_tokens": 12}
    (choice,) = chat(sdk, QUESTION, body).choices
    assert choice.message.content
    assert choice.message.tool_calls is None


def test_a_result_goes_back(sdk: OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "celsius"}'},
    }
    history: list[Any] = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 21 degrees."},
    ]
    body = {**GREEDY, "tools": TOOLS, "max_tokens": 40, "parallel_tool_calls": False}
    (choice,) = chat(sdk, history, body).choices
    assert choice.message.content or choice.message.tool_calls
    alone = chat(sdk, QUESTION, body).usage
    usage = chat(sdk, history, body).usage
    assert usage is not None and alone is not None
    assert usage.prompt_tokens > alone.prompt_tokens + 10


def test_a_schema_that_cannot_be_enforced(http: httpx.Client) -> None:
    strange = {"name": "f", "parameters": {"type": "strange"}, "strict": True}
    bad = {"type": "function", "function": strange}
    body = {"tools": [WEATHER, bad], "tool_choice": "required"}
    response = http.post("/v1/chat/completions", json=chat_body(QUESTION, body))
    assert response.status_code == 400
    param = error_of(response.content)["param"]
    assert param is not None and param.startswith("tools")
