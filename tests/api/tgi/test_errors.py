"""Errors in TGI's shape, before an answer and in its midst."""

import json
from typing import Any

import httpx
import pytest

from server.errors import (
    CorralError,
    EngineError,
    InvalidRequest,
    ModelLoadError,
    QueueFull,
    Unavailable,
    WorkerDied,
)
from server.ipc import Accepted, Delta, TokenScore
from tests.api.scripted import fail, house

BODY = {"inputs": "Hi", "parameters": {"max_new_tokens": 4}}


def told(response: httpx.Response) -> tuple[int, str, str]:
    """Status, type and message of an error, which must have the one shape."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error", "error_type"}
    return response.status_code, body["error_type"], body["error"]


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream", "/v1/generate"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidRequest("no", "inputs"), (422, "validation", "Input validation error: no")),
        (QueueFull("too many"), (429, "overloaded", "too many")),
        (Unavailable("loading"), (503, "overloaded", "loading")),
        (ModelLoadError("no such file"), (424, "generation", "no such file")),
        (WorkerDied("it died"), (424, "generation", "it died")),
        (EngineError("bad batch"), (424, "generation", "bad batch")),
    ],
)
async def test_before_an_answer(
    path: str, error: CorralError, expected: tuple[int, str, str]
) -> None:
    async with house(fail(error)) as h:
        response = await h.post(path, **BODY)
    assert told(response) == expected
    if expected[1] == "overloaded":
        assert int(response.headers["retry-after"]) >= 1


async def test_a_model_that_nobody_knows() -> None:
    async with house() as h:
        response = await h.client.post("/generate", json={**BODY, "model": "nobody"})
    status, kind, message = told(response)
    assert (status, kind) == (404, "validation")
    assert "nobody" in message


@pytest.mark.parametrize("path", ["/generate", "/info", "/chat_tokenize", "/tokenize"])
async def test_no_model_to_ask(path: str) -> None:
    """Two are configured, and none is the default."""
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    bodies: dict[str, Any] = {"/chat_tokenize": chat, "/info": None}
    method = "GET" if path == "/info" else "POST"
    async with house() as h:
        response = await h.client.request(method, path, json=bodies.get(path, BODY))
    status, kind, message = told(response)
    assert (status, kind) == (422, "validation")
    assert "model: required" in message


async def test_in_the_midst_of_a_stream() -> None:
    delta = Delta(0, "Hi", 1, (TokenScore(1, b"Hi", -0.5),))
    async with house(fail(WorkerDied("it died"), Accepted(0, 1), delta)) as h:
        response = await h.post("/generate_stream", **BODY)
    assert response.status_code == 200
    first, last = response.text.removesuffix("\n\n").split("\n\n")
    assert json.loads(first.removeprefix("data:"))["token"]["text"] == "Hi"
    assert json.loads(last.removeprefix("data:")) == {
        "error": "it died",
        "error_type": "generation",
    }


async def test_what_nobody_foresaw_in_a_stream() -> None:
    # A last event without the token that ends the answer breaks the contract.
    async with house() as h:
        response = await h.post("/generate_stream", **BODY)
    *_, last = response.text.removesuffix("\n\n").split("\n\n")
    assert json.loads(last.removeprefix("data:"))["error_type"] == "incomplete_generation"


async def test_what_nobody_foresaw() -> None:
    async with house(fail(KeyError("a fault of ours"))) as h:  # pyright: ignore[reportArgumentType]
        response = await h.post("/generate", **BODY)
    status, kind, message = told(response)
    assert (status, kind) == (500, "incomplete_generation")
    assert "fault" not in message
