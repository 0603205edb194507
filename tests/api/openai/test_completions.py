"""POST /v1/completions: what it takes and what it answers."""

from collections.abc import Sequence
from typing import Any

import pytest
from openai.types import Completion

from server.ipc import Event, GenerateRequest, Text
from tests.api.scripted import MODEL, error_of, events, house, speak


async def test_the_whole_answer() -> None:
    async with house() as h:
        body = (await h.complete()).json()
    Completion.model_validate(body, strict=True)
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"text": "Hello world", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"]["total_tokens"] == 10


async def test_the_chunks() -> None:
    async with house(speak("a", "b", reason="length")) as h:
        options = {"include_usage": True}
        response = await h.complete(stream=True, stream_options=options)
    *chunks, usage, done = events(response.content)
    assert done == "[DONE]"
    Completion.model_validate(usage, strict=True)
    Completion.model_validate(chunks[-1], strict=True)
    for chunk in (*chunks, usage):
        assert chunk["object"] == "text_completion"
        assert (chunk["id"], chunk["created"]) == (usage["id"], usage["created"])
    assert [chunk["choices"][0] for chunk in chunks] == [
        {"text": "a", "index": 0, "logprobs": None, "finish_reason": None},
        {"text": "b", "index": 0, "logprobs": None, "finish_reason": None},
        {"text": "", "index": 0, "logprobs": None, "finish_reason": "length"},
    ]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hi", [Text("Hi")]),
        ("", [Text("")]),
        (["a", "b"], [Text("a"), Text("b")]),
        ([1, 2, 99], [(1, 2, 99)]),
        ([[0, 1], [2]], [(0, 1), (2,)]),
    ],
)
async def test_prompts(prompt: object, expected: list[object]) -> None:
    async with house() as h:
        response = await h.complete(prompt=prompt)
    assert response.status_code == 200
    assert [request.prompt for request in h.worker.requests] == expected
    assert {request.prompt_param for request in h.worker.requests} == {"prompt"}


async def test_choices_are_ordered_by_prompt() -> None:
    def script(number: int, request: GenerateRequest) -> Sequence[Event]:
        return speak(f"{number}", n_prompt=5)(number, request)

    async with house(script) as h:
        body = (await h.complete(prompt=["a", "b"], n=2, seed=3)).json()
    assert [choice["text"] for choice in body["choices"]] == ["0", "1", "2", "3"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    asked = [(request.prompt, request.sampling.seed) for request in h.worker.requests]
    assert asked == [(Text("a"), 3), (Text("a"), 4), (Text("b"), 3), (Text("b"), 4)]
    assert body["usage"]["prompt_tokens"] == 10


@pytest.mark.parametrize(
    ("limit", "expected"), [({}, 16), ({"max_tokens": 5}, 5), ({"max_tokens": None}, 16)]
)
async def test_limits(limit: dict[str, object], expected: int) -> None:
    async with house() as h:
        await h.complete(**limit)
    assert h.worker.requests[0].max_tokens == expected


BAD_PROMPTS: list[tuple[Any, str, str]] = [
    (None, "prompt", "Field required"),
    ([], "prompt", "not empty"),
    (5, "prompt", "must be a text"),
    ({}, "prompt", "must be a text"),
    (["a", 1], "prompt", "item 1 is not a text"),
    ([1, "a"], "prompt", "item 1 is not a token id"),
    ([1, True], "prompt", "item 1 is not a token id"),
    ([1, 1.0], "prompt", "item 1 is not a token id"),
    ([[]], "prompt", "item 0 must be token ids, at least one"),
    ([[1], 2], "prompt", "item 1 must be token ids"),
    ([[1], [2, None]], "prompt", "item 1.1 is not a token id"),
    ([0, 100], "prompt.1", "token id 100, the vocabulary has 100 tokens"),
    ([-1], "prompt.0", "token id -1, the vocabulary has 100 tokens"),
    ([[1], [2, 10**30]], "prompt.1.1", "the vocabulary has 100 tokens"),
]


@pytest.mark.parametrize(("prompt", "param", "message"), BAD_PROMPTS)
async def test_bad_prompts(prompt: object, param: str, message: str) -> None:
    async with house() as h:
        response = await h.complete(prompt=prompt)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert error["message"].startswith("prompt") and message in error["message"]
    assert h.worker.requests == []


@pytest.mark.parametrize(("n_prompts", "n", "status"), [(8, 16, 200), (129, 1, 400), (9, 15, 400)])
async def test_the_cap_on_choices(n_prompts: int, n: int, status: int) -> None:
    async with house() as h:
        response = await h.complete(prompt=["x"] * n_prompts, n=n)
    assert response.status_code == status
    if status == 400:
        assert "at most 128" in error_of(response)["message"]


async def test_what_is_not_served_is_reported() -> None:
    async with house() as h:
        response = await h.complete(echo=True, logprobs=1, best_of=2, suffix="x")
    assert response.headers["x-corral-ignored"] == "echo, logprobs, best_of, suffix"


async def test_a_full_queue() -> None:
    async with house(lambda _, __: []) as h:
        h.worker.capacity = 2
        response = await h.complete(prompt=["a", "b", "c"])
    assert response.status_code == 429
    assert response.headers["retry-after"] == "2"
    assert error_of(response)["code"] == "rate_limit_exceeded"
    assert h.worker.cancelled == [0, 1]


async def test_the_model_is_named_as_configured() -> None:
    async with house() as h:
        assert (await h.complete()).json()["model"] == MODEL
