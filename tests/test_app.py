"""The app as a whole: its routes, its life, and bodies of every kind."""

import asyncio
import json
import sys
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from server.app import create_app
from tests.api.scripted import MODEL, ScriptedWorker, build, error_of, house


async def test_the_lifespan_starts_and_closes_the_pool() -> None:
    app, pool = build()
    async with app.router.lifespan_context(app):
        assert pool.log == ["start"]
    assert pool.log == ["start", "close"]


async def test_the_pool_is_closed_after_an_error_too() -> None:
    app, pool = build()
    with pytest.raises(KeyError):
        async with app.router.lifespan_context(app):
            raise KeyError
    assert pool.log == ["start", "close"]


async def test_a_model_without_a_template_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that was loaded before the app started, too."""
    monkeypatch.setattr("server.app.TELL_AFTER_S", 0.0)
    app, pool = build(template=None)

    def serving(_: str) -> ScriptedWorker:
        return pool.scripted

    monkeypatch.setattr(pool, "serving", serving)
    async with app.router.lifespan_context(app), asyncio.timeout(5):
        while f"{MODEL}: no chat: " not in caplog.text:
            await asyncio.sleep(0)


PATHS = (
    ("POST", "/chat/completions"),
    ("POST", "/completions"),
    ("POST", "/responses"),
    ("POST", "/apply-template"),
    ("GET", "/tokenizer_info"),
    ("GET", "/models"),
    ("GET", "/models/org/tiny"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
)


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_routes_with_and_without_v1(method: str, path: str, prefix: str) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    # Each endpoint takes what is its own; a prompt is not served by /responses.
    body = {"model": MODEL, "messages": messages, "input": "Hi"}
    if path == "/completions":
        body["prompt"] = "Hi"
    async with house() as h:
        response = await h.client.request(method, prefix + path, json=body, params={"model": MODEL})
        assert response.status_code == 200
        wrong = await h.client.request("PATCH", prefix + path)
        assert wrong.status_code == 405
        assert wrong.headers["allow"] == method
        assert error_of(wrong)["message"] == f"method not allowed: PATCH {prefix}{path}"


@pytest.mark.parametrize("path", ["/v1", "/v2/models", "/v1/chat/completions/", "/v1/healthz/"])
async def test_unknown_urls(path: str) -> None:
    async with house() as h:
        response = await h.client.post(path)
    assert response.status_code == 404
    error = error_of(response)
    assert error["message"] == f"unknown URL: POST {path}"
    assert error["type"] == "invalid_request_error"


def test_two_apps_do_not_share_anything() -> None:
    (one, pool), (other, _) = build(), build()
    assert one.state.services is not other.state.services
    assert create_app(one.state.services.config, pool) is not one


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["user", "text", MODEL, "<|im_end|>"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
ANY_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "n": JSON,
    "max_tokens": JSON,
    "max_completion_tokens": JSON,
    "stop": JSON,
    "stream": JSON,
    "stream_options": JSON,
    "seed": JSON,
    "logit_bias": JSON,
    "temperature": JSON,
    "dry_sequence_breakers": JSON,
    "cache_prompt": JSON,
    "add_generation_prompt": JSON,
    "continue_final_message": JSON,
    "chat_template_kwargs": JSON,
    "tools": JSON,
    "user": JSON,
    "response_format": JSON,
}
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "developer", "tool", "nobody"])},
    optional={"content": st.text() | JSON, "name": JSON, "tool_calls": JSON, "more": JSON},
)
NEAR = st.fixed_dictionaries(
    {"model": st.just(MODEL)},
    optional={
        **ANY_FIELD,
        "messages": st.lists(MESSAGE, min_size=1, max_size=2) | JSON,
        "prompt": st.lists(st.integers(-1, 101)) | JSON,
    },
)


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """One for all that is made up, whose worker never has enough."""
    app, pool = build()
    pool.scripted.capacity = sys.maxsize
    return app


async def post(app: FastAPI, path: str, content: str | bytes) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://corral") as client:
        return await client.post(path, content=content)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@given(body=JSON | NEAR)
@settings(max_examples=300, deadline=None)
async def test_no_body_brings_us_down(app: FastAPI, path: str, body: object) -> None:
    response = await post(app, path, json.dumps(body))
    if response.status_code != 200:
        assert response.status_code in (400, 404), response.text
        error_of(response)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@given(body=st.binary())
@settings(max_examples=100, deadline=None)
async def test_nor_do_bytes(app: FastAPI, path: str, body: bytes) -> None:
    response = await post(app, path, body)
    assert response.status_code == 400
    error_of(response)
