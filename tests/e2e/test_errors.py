"""Errors: the SDK's exceptions, and one shape of body whatever went wrong."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.e2e.asking import GREEDY, MODEL, Body, chat, chat_body, complete, user
from tests.e2e.conftest import BROKEN, LONE_N_CTX, N_CTX, Lone
from tests.e2e.process import Corral, eventually
from tests.e2e.wire import error_of

CHAT = chat_body(user("Hi"), {"max_tokens": 1})
TEXT: Body = {"model": MODEL, "prompt": "Hi", "max_tokens": 1}


def test_an_unknown_model(sdk: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="nobody", messages=[*user("Hi")])
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert caught.value.type == "invalid_request_error"
    assert "'nobody'" in caught.value.message
    assert MODEL in caught.value.message
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.models.retrieve("nobody/at all")
    assert caught.value.code == "model_not_found"


def test_a_prompt_that_is_too_long(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(sdk, [28] * 3000, {"max_tokens": 1})
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "prompt"
    assert "3,000" in caught.value.message
    assert f"{N_CTX:,}" in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        chat(sdk, user("word " * 3000), {"stream": True})
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"


def test_the_longest_prompt(strict: Lone) -> None:
    with strict.sdk() as sdk:
        body = {**GREEDY, "max_tokens": 9, "ignore_eos": True}
        answer = complete(sdk, [28] * (LONE_N_CTX - 1), body)
        assert answer.usage is not None
        assert answer.usage.total_tokens == LONE_N_CTX
        assert answer.choices[0].finish_reason == "length"
        with pytest.raises(openai.BadRequestError):
            complete(sdk, [28] * LONE_N_CTX, body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": 7}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "king", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]},
            "messages.0.content.0.text",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"stream": "maybe"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stop": [1]}, "stop.0"),
        ({"stop": [""]}, "stop.0"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"seed": "x"}, "seed"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"continue_final_message": True}, "continue_final_message"),
    ],
    ids=str,
)
def test_wrong_fields_of_a_chat(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    body = {**CHAT, **body} if body else {"messages": CHAT["messages"]}
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    error = error_of(response.content)
    assert error["param"] == param, error
    assert error["type"] == "invalid_request_error"


WRONG_COMPLETIONS: list[tuple[Body, str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": [1, -1]}, "prompt.1"),
    ({"prompt": [1, 49152]}, "prompt.1"),
    ({"prompt": [[1], [2, 2**40]]}, "prompt.1.1"),
    ({"logit_bias": {"49152": 1}}, "logit_bias"),
    ({"n": 16, "prompt": ["a"] * 9}, "prompt"),
]


@pytest.mark.parametrize(("body", "param"), WRONG_COMPLETIONS, ids=lambda value: str(value)[:40])
def test_wrong_fields_of_a_completion(http: httpx.Client, body: Body, param: str) -> None:
    response = http.post("/v1/completions", json={**TEXT, **body})
    assert response.status_code == 400
    error = error_of(response.content)
    assert error["param"] == param, error


def test_image_parts_are_not_served(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(
            model=MODEL,
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:,"}}],
                }
            ],
        )
    assert caught.value.code == "unsupported_parameter"
    assert caught.value.param == "messages.0.content.0.type"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"model": NaN}']
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_bodies_that_are_none(http: httpx.Client, path: str, body: bytes) -> None:
    response = http.post(path, content=body)
    assert response.status_code == 400
    assert error_of(response.content)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/", 405),
        ("GET", "/v1", 404),
        ("POST", "/v1/chat/completion", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/models/", 404),
    ],
)
def test_wrong_urls(http: httpx.Client, method: str, path: str, status: int) -> None:
    response = http.request(method, path)
    assert response.status_code == status
    error_of(response.content)
    assert response.headers["x-request-id"]


def test_request_ids(http: httpx.Client) -> None:
    for path in ("/v1/models/nobody", "/nowhere", "/healthz"):
        response = http.get(path, headers={"x-request-id": "abc-123"})
        assert response.headers["x-request-id"] == "abc-123"
        assert response.headers["openai-processing-ms"].isdigit()
    long = http.get("/healthz", headers={"x-request-id": "x" * 129})
    assert long.headers["x-request-id"].startswith("req_")
    ids = {http.get("/healthz").headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2


def in_parts(n_bytes: int) -> Iterator[bytes]:
    """A body whose length nobody announces."""
    for _ in range(0, n_bytes, 1000):
        yield b" " * 1000


def test_a_body_that_is_too_large(strict: Lone, http: httpx.Client) -> None:
    limit = 64 * 1024
    for content in (b" " * (limit + 1), in_parts(limit + 1000)):
        response = strict.http.post("/v1/chat/completions", content=content)
        assert response.status_code == 413
        assert "65,536" in error_of(response.content)["message"]
    fits = json.dumps(CHAT).encode().ljust(limit)
    assert strict.http.post("/v1/chat/completions", content=fits).status_code == 200
    # Another server takes more, by its own setting.
    assert http.post("/v1/chat/completions", content=fits + b" ").status_code == 200


def test_a_full_queue(strict: Lone) -> None:
    """One request runs and none may wait."""
    with strict.sdk() as sdk:
        body = {"max_tokens": 400, "ignore_eos": True}
        running = sdk.chat.completions.create(
            model=MODEL, messages=[*user("Hi")], stream=True, extra_body=body
        )
        next(running)
        with pytest.raises(openai.RateLimitError) as caught:
            chat(sdk, user("Me too"), {"max_tokens": 1})
        assert caught.value.code == "rate_limit_exceeded"
        assert int(caught.value.response.headers["retry-after"]) > 0
        running.close()

        def works() -> bool:
            return strict.http.post("/v1/chat/completions", json=CHAT).status_code == 200

        eventually(works, "there is room again")


@pytest.mark.parametrize(
    ("id", "reason"),
    [
        ("broken/truncated", "not within the file bounds"),
        ("broken/not-a-gguf", "invalid magic"),
        ("broken/missing", "No such file"),
    ],
)
def test_files_that_are_no_models(sdk: OpenAI, http: httpx.Client, id: str, reason: str) -> None:
    assert id in BROKEN
    body = {**CHAT, "model": id}
    # The second time from memory: what has just failed is not tried again at once.
    for _ in range(2):
        response = http.post("/v1/chat/completions", json=body)
        assert response.status_code == 500
        error = error_of(response.content)
        assert error["code"] == "model_load_error"
        assert reason in error["message"]
        assert response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.InternalServerError):
        sdk.completions.create(model=id, prompt="Hi")
    chat(sdk, user("Hi"), {"max_tokens": 1})
    assert http.get("/readyz").status_code == 200


def test_nothing_of_this_kills_a_worker(corral: Corral, sdk: OpenAI) -> None:
    chat(sdk, user("Hi"), {"max_tokens": 1})
    assert "the worker died" not in corral.log.text
