"""/v1/responses against the document: whole answers, every event, and what the store gives back."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.responses import FunctionToolParam, Response
from pydantic import BaseModel, Field

from tests.contract import schemas
from tests.contract.known import read
from tests.contract.published import Json, Published
from tests.e2e.asking import MODEL
from tests.e2e.process import eventually

PATH = "/v1/responses"

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place.",
    "strict": True,
    "parameters": dict(schemas.WEATHER),
}
ITEMS = [
    {"role": "developer", "content": "You are terse."},
    {"role": "user", "content": [{"type": "input_text", "text": "How warm is Paris?"}]},
    {
        "type": "function_call",
        "call_id": "call_1",
        "name": "get_weather",
        "arguments": '{"place":"Paris","unit":"C"}',
    },
    {"type": "function_call_output", "call_id": "call_1", "output": "19 degrees"},
]
FORMAT = {"type": "json_schema", "name": "person", "schema": schemas.PERSON, "strict": True}

BODIES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "instructions": {"instructions": "Be brief.", "metadata": {"a": "b"}},
    "items": {"input": ITEMS, "tools": [WEATHER]},
    "scored": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    "a schema": {"text": {"format": FORMAT}, "max_output_tokens": 80},
    "json": {"text": {"format": {"type": "json_object"}}, "max_output_tokens": 60},
    "a call": {"tools": [WEATHER], "tool_choice": "required", "max_output_tokens": 120},
    "a named call": {
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "max_output_tokens": 120,
    },
    "tools of others": {
        "tools": [
            WEATHER,
            {"type": "web_search"},
            {"type": "custom", "name": "apply_patch", "description": "Edits files."},
        ],
        "tool_choice": "auto",
    },
    "all that the SDK sends": {
        "store": True,
        "truncation": "auto",
        "user": "me",
        "service_tier": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "top_p": 0.9,
    },
}


def body_of(name: str) -> dict[str, Any]:
    """The request of this case."""
    return {
        "model": MODEL,
        "input": "How warm is Paris?",
        "temperature": 0,
        "max_output_tokens": 8,
        **BODIES[name],
    }


@pytest.mark.parametrize("name", BODIES)
def test_whole(http: httpx.Client, document: Published, name: str) -> None:
    response = http.post(PATH, json=body_of(name))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    document.check("Response", response.json())
    answer = read(Response, response.json())
    assert answer.status in ("completed", "incomplete")
    if "call" in name:
        (call,) = [item for item in answer.output if item.type == "function_call"]
        assert json.loads(call.arguments)["unit"] in ("C", "F")


@pytest.mark.parametrize("name", BODIES)
def test_stream(http: httpx.Client, document: Published, name: str) -> None:
    response = http.post(PATH, json={**body_of(name), "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = events_of(response.content)
    for event in events:
        document.check_event(event)
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    last = read(Response, events[-1]["response"])
    pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(pieces) == last.output_text
    opened = [event["item"]["id"] for event in events if event["type"].endswith("item.added")]
    assert opened == [item.id for item in last.output]


def test_the_store(http: httpx.Client, document: Published) -> None:
    made = http.post(PATH, json=body_of("instructions")).json()
    url = f"{PATH}/{made['id']}"
    kept = http.get(url).json()
    document.check("Response", kept)
    assert kept == made
    items = http.get(f"{url}/input_items").json()
    document.check("ResponseItemList", items)
    assert [item["role"] for item in items["data"]] == ["user"]
    more = {**body_of("plain"), "input": "And Rome?", "previous_response_id": made["id"]}
    after = http.post(PATH, json=more).json()
    document.check("Response", after)
    assert after["previous_response_id"] == made["id"]
    assert after["usage"]["input_tokens"] > made["usage"]["input_tokens"]
    gone = http.delete(url)
    assert gone.status_code == 200
    assert gone.json() == {"id": made["id"], "object": "response", "deleted": True}
    for response in (http.get(url), http.delete(url), http.get(f"{url}/input_items")):
        assert response.status_code == 404
        document.check("ErrorResponse", response.json())
    response = http.post(PATH, json=more)
    assert response.status_code in (400, 404)
    document.check("ErrorResponse", response.json())
    assert response.json()["error"]["param"] == "previous_response_id"


def test_in_the_background(http: httpx.Client, document: Published) -> None:
    body = {**body_of("plain"), "background": True, "max_output_tokens": 6}
    queued = http.post(PATH, json=body).json()
    document.check("Response", queued)
    assert queued["status"] in ("queued", "in_progress", "completed", "incomplete")
    url = f"{PATH}/{queued['id']}"
    eventually(lambda: http.get(url).json()["status"] == "incomplete", "it ends")
    document.check("Response", http.get(url).json())
    endless = {"max_output_tokens": 1500, "logit_bias": {"28": 90}, "ignore_eos": True}
    running = http.post(PATH, json={**body, **endless}).json()
    cancelled = http.post(f"{PATH}/{running['id']}/cancel").json()
    document.check("Response", cancelled)
    assert cancelled["status"] == "cancelled"


def test_counting(http: httpx.Client, document: Published) -> None:
    counted = http.post(f"{PATH}/input_tokens", json={"model": MODEL, "input": "How warm?"}).json()
    document.check("TokenCountsResource", counted)
    asked = {"model": MODEL, "input": "How warm?", "max_output_tokens": 1}
    answer = http.post(PATH, json=asked).json()
    assert counted["input_tokens"] == answer["usage"]["input_tokens"]


class Person(BaseModel):
    """What `parse` makes a schema of."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)


def test_the_sdk(sdk: OpenAI) -> None:
    parsed = sdk.responses.parse(
        model=MODEL, input="Ann is 7.", text_format=Person, temperature=0
    ).output_parsed
    assert isinstance(parsed, Person)
    with sdk.responses.stream(
        model=MODEL, input="Ann is 7.", text_format=Person, temperature=0
    ) as stream:
        kinds = {event.type for event in stream}
        assert isinstance(stream.get_final_response().output_parsed, Person)
    assert "response.output_text.delta" in kinds


def test_a_conversation_with_a_call(sdk: OpenAI) -> None:
    asked = sdk.responses.create(
        model=MODEL,
        input="How warm is Paris?",
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
    )
    (call,) = [item for item in asked.output if item.type == "function_call"]
    answer = sdk.responses.create(
        model=MODEL,
        previous_response_id=asked.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "19 C"}],
        tools=[WEATHER],
        tool_choice="none",
        temperature=0,
        max_output_tokens=12,
    )
    assert answer.output_text


def events_of(raw: bytes) -> list[Json]:
    """The events of a whole stream: two lines each, the first with the type, and no [DONE]."""
    assert raw.endswith(b"\n\n")
    events: list[Json] = []
    for block in raw.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        kind, data = block.split("\n")
        assert kind.startswith("event: ")
        event = json.loads(data.removeprefix("data: "))
        assert event["type"] == kind.removeprefix("event: ")
        events.append(event)
    return events
