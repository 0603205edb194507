"""The judge itself: it takes what OpenAI shows as its answers, and refuses what is none."""

import json
from copy import deepcopy
from typing import Any

import pytest

from tests.contract.published import WIDER, Json, Published, Wider, published

CHUNK: Json = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}],
}


def test_nulls_of_both_manners() -> None:
    published().check("CreateChatCompletionStreamResponse", CHUNK)
    error = {"message": "m", "type": "t", "param": None, "code": None}
    published().check("ErrorResponse", {"error": error})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("object",), "chat.completion"),
        (("created",), 1.5),
        (("choices", 0, "finish_reason"), "null"),
        (("choices", 0, "index"), None),
        (("choices", 0, "delta"), {"role": 7}),
        (("choices", 0, "delta"), {"tool_calls": [{"id": "call_1"}]}),
        (("choices", 0, "logprobs"), {"content": [{"token": "a"}]}),
        (("usage",), {"prompt_tokens": 1}),
    ],
    ids=str,
)
def test_wrong_chunks(place: tuple[str | int, ...], value: object) -> None:
    chunk: Any = deepcopy(CHUNK)
    *path, last = place
    parent = chunk
    for key in path:
        parent = parent[key]
    parent[last] = value
    fault = published().fault("CreateChatCompletionStreamResponse", chunk)
    assert fault is not None
    assert f".{next(key for key in reversed(place) if isinstance(key, str))}" in fault


def test_errors_need_all_four_fields() -> None:
    for name in ("message", "type", "param", "code"):
        error = {"message": "m", "type": "t", "param": None, "code": None}
        del error[name]
        assert published().fault("ErrorResponse", {"error": error})


def test_an_event_is_judged_by_its_type() -> None:
    delta: Json = {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hi",
        "sequence_number": 4,
        "logprobs": [],
    }
    published().check_event(delta)
    for event in ({**delta, "type": "response.nothing"}, {**delta, "delta": None}):
        with pytest.raises(AssertionError):
            published().check_event(event)


TEXT: Json = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}


def text(choice: Json, **more: object) -> tuple[str, Json]:
    """A completion with one choice."""
    choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop", **choice}
    return "CreateCompletionResponse", {**TEXT, "choices": [choice], **more}


NEEDS = (
    text({"finish_reason": None}),
    text({}, usage=None),
    text({"logprobs": {"token_logprobs": [None]}}),
    text({"logprobs": {"top_logprobs": [None]}}),
    ("Embedding", {"index": 0, "object": "embedding", "embedding": "AAAA"}),
)
"""What is right only by WIDER, in its order."""


@pytest.mark.parametrize(
    ("wider", "name", "value"),
    [(wider, *need) for wider, need in zip(WIDER, NEEDS, strict=True)],
    ids=[wider.pointer.partition("/")[0] + f"-{i}" for i, wider in enumerate(WIDER)],
)
def test_nothing_is_wider_without_need(wider: Wider, name: str, value: Json) -> None:
    published().check(name, value)
    narrow = Published(tuple(other for other in WIDER if other != wider))
    assert narrow.fault(name, value), json.dumps(value)
