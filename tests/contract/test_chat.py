"""/v1/chat/completions against the document: whole answers and every chunk."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.contract import schemas
from tests.contract.known import read
from tests.contract.published import Published
from tests.e2e.asking import chat_body, user
from tests.e2e.wire import events

PATH = "/v1/chat/completions"

WEATHER: Mapping[str, object] = {
    "name": "get_weather",
    "description": "The weather at a place.",
    "parameters": schemas.WEATHER,
}
TOOL = {"type": "function", "function": WEATHER}
PERSON = {"name": "person", "strict": True, "schema": schemas.PERSON}
HISTORY = [
    {"role": "developer", "content": "You are terse."},
    {"role": "user", "content": [{"type": "text", "text": "How is the weather in Paris?"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"place":"Paris","unit":"C"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "19 degrees, sunny"},
]

BODIES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "ends": {"max_completion_tokens": 60, "logit_bias": {"2": 60}},
    "two": {"n": 2, "temperature": 1, "seed": 7},
    "scored": {"logprobs": True, "top_logprobs": 3},
    "scored without rivals": {"logprobs": True},
    "scored bytes": {"logprobs": True, "top_logprobs": 2, "logit_bias": {"158": 90}},
    "json object": {"response_format": {"type": "json_object"}, "max_tokens": 60},
    "json schema": {
        "response_format": {"type": "json_schema", "json_schema": PERSON},
        "max_tokens": 80,
    },
    "tools, free": {"tools": [TOOL], "max_tokens": 30},
    "tools, none": {"tools": [TOOL], "tool_choice": "none"},
    "tools, required": {"tools": [TOOL], "tool_choice": "required", "max_tokens": 120},
    "tools, one named": {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "max_tokens": 120,
    },
    "tools, scored": {
        "tools": [TOOL],
        "tool_choice": "required",
        "logprobs": True,
        "max_tokens": 120,
    },
    "functions": {
        "functions": [WEATHER],
        "function_call": {"name": "get_weather"},
        "max_tokens": 120,
    },
    "history": {"messages": HISTORY, "tools": [TOOL], "max_tokens": 20},
    "all that the SDK sends": {
        "store": False,
        "metadata": {"a": "b"},
        "user": "me",
        "service_tier": "auto",
        "parallel_tool_calls": True,
        "tools": [TOOL],
    },
}


def body_of(name: str) -> dict[str, Any]:
    """The request of this case."""
    return chat_body(
        user("How is the weather in Paris?"), {"temperature": 0, "max_tokens": 8, **BODIES[name]}
    )


@pytest.fixture(params=BODIES)
def body(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each case."""
    return body_of(request.param)


def test_whole(http: httpx.Client, document: Published, body: dict[str, Any]) -> None:
    response = http.post(PATH, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    document.check("CreateChatCompletionResponse", response.json())
    answer = read(ChatCompletion, response.json())
    assert len(answer.choices) == body.get("n", 1)
    for choice in answer.choices:
        assert (choice.logprobs is None) == (not body.get("logprobs"))
        if "response_format" in body and choice.finish_reason == "stop":
            json.loads(choice.message.content or "")


@pytest.mark.parametrize("usage", [False, True], ids=["", "usage"])
def test_stream(http: httpx.Client, document: Published, body: dict[str, Any], usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if usage else {}
    response = http.post(PATH, json={**body, "stream": True, **options})
    assert response.status_code == 200, response.text
    *chunks, done = events(response.content)
    assert done == "[DONE]"
    for chunk in map(json.loads, chunks):
        document.check("CreateChatCompletionStreamResponse", chunk)
        read(ChatCompletionChunk, chunk)
        assert ("usage" in chunk) == usage
    assert (json.loads(chunks[-1])["choices"] == []) == usage


def test_a_call_is_made_where_one_must_be(http: httpx.Client) -> None:
    for name in ("tools, required", "tools, one named"):
        (choice,) = http.post(PATH, json=body_of(name)).json()["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert choice["message"]["content"] is None
        assert call["type"] == "function"
        arguments = json.loads(call["function"]["arguments"])
        assert arguments.keys() == {"place", "unit"}
        assert arguments["unit"] in ("C", "F")
    (choice,) = http.post(PATH, json=body_of("functions")).json()["choices"]
    assert choice["finish_reason"] == "function_call"
    assert json.loads(choice["message"]["function_call"]["arguments"])["unit"] in ("C", "F")


def test_the_answer_matches_its_schema(http: httpx.Client) -> None:
    (choice,) = http.post(PATH, json=body_of("json schema")).json()["choices"]
    person = json.loads(choice["message"]["content"])
    assert person.keys() == {"name", "age"}
    assert 0 <= person["age"] <= 120
    assert choice["finish_reason"] == "stop"
