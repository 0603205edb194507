"""Reads streams of /responses strictly, and a house that keeps what it answers."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.api.scripted import HELLO, House, Script, house
from tests.contract.published import published

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

LAST = ("response.completed", "response.incomplete", "response.failed")


@asynccontextmanager
async def keeping(
    path: Path, script: Script = HELLO, budget: int = 2**20, **settings: Any
) -> AsyncGenerator[House]:
    """A running app with its store at `path`."""
    async with (
        house(script, store=path, store_budget=budget, **settings) as h,
        h.app.router.lifespan_context(h.app),
    ):
        yield h


def events(body: bytes, first: int = 0) -> list[Any]:
    """The events of a stream, each checked by its frame, its number and the SDK's type."""
    text = body.decode()
    assert "\r" not in text and text.endswith("\n\n")
    told: list[Any] = []
    for number, frame in enumerate(text.removesuffix("\n\n").split("\n\n"), first):
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        EVENT.validate_python(event, strict=True)
        published().check_event(event)
        told.append(event)
    return told


def whole(body: bytes) -> Any:
    """The response at the end of a stream, which must be the sum of the events before."""
    told = events(body)
    *before, last = told
    assert told[0]["type"] == "response.created"
    assert last["type"] in LAST and not any(event["type"] in LAST for event in before)
    for event in told:
        if "response" in event:
            checked(event["response"])
            assert event["response"]["id"] == last["response"]["id"]
    assert fold(before) == last["response"]["output"]
    return last["response"]


def checked(response: Any) -> Any:
    """The response, as the SDK and OpenAI's document want it."""
    Response.model_validate(response, strict=True)
    published().check("Response", response)
    return response


def fold(told: Sequence[Any]) -> list[Any]:
    """The output that the events add up to; each says the same in pieces and at once."""
    items: list[Any] = []
    for event in told:
        kind = cast("str", event["type"]).removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items)
            assert event["item"]["status"] == "in_progress"
            items.append(event["item"])
        elif kind == "output_item.done":
            assert _said(event["item"]) == _said(items[-1])
            assert event["item"]["status"] in ("completed", "incomplete")
            items[-1] = event["item"]
        elif "output_index" in event:
            assert event["output_index"] == len(items) - 1
            assert event["item_id"] == items[-1]["id"]
            _add(items[-1], kind, event)
    return items


def _add(item: Any, kind: str, event: Any) -> None:
    """What an event adds to its item, or says of it once more."""
    match kind:
        case "content_part.added":
            assert event["content_index"] == len(item["content"])
            item["content"].append(event["part"])
        case "output_text.delta" | "reasoning_text.delta":
            item["content"][-1]["text"] += event["delta"]
            if "logprobs" in event:
                item["content"][-1]["logprobs"] += event["logprobs"]
        case "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        case "output_text.done" | "reasoning_text.done":
            assert event["text"] == item["content"][-1]["text"]
            assert event.get("logprobs") == item["content"][-1].get("logprobs")
        case "function_call_arguments.done":
            assert (event["name"], event["arguments"]) == (item["name"], item["arguments"])
        case "content_part.done":
            assert event["part"] == item["content"][-1]
        case _:
            raise AssertionError(event)


def _said(item: Any) -> Any:
    """An item without what is known at its end only."""
    return {k: v for k, v in item.items() if k not in ("status", "encrypted_content")}
