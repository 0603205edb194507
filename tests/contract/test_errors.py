"""Errors of every status and every endpoint against the document."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.contract.conftest import BROKEN, MAX_BODY, NARROW
from tests.contract.published import Published
from tests.e2e.asking import MODEL, forced, user

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": MODEL, "prompt": "Hi"}
ASKS: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": TEXT,
    "/v1/embeddings": {"model": MODEL, "input": "Hi"},
    "/v1/responses": {"model": MODEL, "input": "Hi"},
}


def check(document: Published, response: httpx.Response, status: int) -> Mapping[str, Any]:
    """The error of an answer with this status, in the document's shape and no other."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    document.check("ErrorResponse", body)
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize("path", ASKS)
class TestEach:
    """What every endpoint that takes a model must refuse in the same way."""

    def test_unknown_models(self, http: httpx.Client, document: Published, path: str) -> None:
        error = check(document, http.post(path, json={**ASKS[path], "model": "nobody"}), 404)
        assert (error["type"], error["param"]) == ("invalid_request_error", "model")
        assert error["code"] == "model_not_found"

    def test_no_model(self, http: httpx.Client, document: Published, path: str) -> None:
        """Only a completion needs none: some clients of other servers name none."""
        body = {name: value for name, value in ASKS[path].items() if name != "model"}
        response = http.post(path, json=body)
        if path == "/v1/completions":
            assert response.json()["model"] == MODEL
        else:
            assert check(document, response, 400)["param"] == "model"

    def test_wrong_types(self, http: httpx.Client, document: Published, path: str) -> None:
        for name in ASKS[path]:
            if name == "model":
                continue
            for value in (7, None, {"a": 1}):
                error = check(document, http.post(path, json={**ASKS[path], name: value}), 400)
                assert error["type"] == "invalid_request_error"
                assert (error["param"] or "").partition(".")[0] == name, error

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
    def test_no_json(self, http: httpx.Client, document: Published, path: str, body: bytes) -> None:
        check(document, http.post(path, content=body), 400)

    def test_prompts_that_are_too_long(
        self, http: httpx.Client, document: Published, path: str
    ) -> None:
        long = "word " * 3000
        name = "messages" if "messages" in ASKS[path] else [*ASKS[path]][-1]
        value = [{"role": "user", "content": long}] if name == "messages" else long
        error = check(document, http.post(path, json={**ASKS[path], name: value}), 400)
        assert error["code"] == "context_length_exceeded"
        assert (error["param"] or "").partition(".")[0] == name

    def test_bodies_that_are_too_large(
        self, http: httpx.Client, document: Published, path: str
    ) -> None:
        check(document, http.post(path, content=b" " * (MAX_BODY + 1)), 413)

    def test_wrong_methods(self, http: httpx.Client, document: Published, path: str) -> None:
        response = http.put(path, json=ASKS[path])
        check(document, response, 405)
        assert "POST" in response.headers["allow"]

    def test_files_that_are_no_models(
        self, http: httpx.Client, document: Published, path: str
    ) -> None:
        response = http.post(path, json={**ASKS[path], "model": BROKEN})
        assert check(document, response, 500)["type"] == "server_error"
        assert response.headers["x-should-retry"] == "false"


def test_a_full_queue(http: httpx.Client, sdk: OpenAI, document: Published) -> None:
    with sdk.chat.completions.create(
        model=NARROW, messages=[*user("Hi")], stream=True, extra_body={**forced(28, 900)}
    ) as running:
        next(running)
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
            response = http.post(path, json={**ASKS[path], "model": NARROW})
            error = check(document, response, 429)
            assert error["type"] == "rate_limit_error"
            assert error["code"] == "rate_limit_exceeded"
            assert 0 < int(response.headers["retry-after"]) <= 120


def test_every_method_of_a_url_is_told(http: httpx.Client) -> None:
    assert http.options("/v1/responses/resp_1").headers["allow"] == "GET, DELETE"
    assert http.options("/responses/resp_1").headers["allow"] == "GET, DELETE"
    assert http.options("/v1/responses/input_tokens").headers["allow"] == "POST"
    assert http.delete("/v1/models").headers["allow"] == "GET"
    assert http.put("/openapi.json").headers["allow"]


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v1/models/", "/v1/models/nobody"])
def test_unknown_urls(http: httpx.Client, document: Published, path: str) -> None:
    check(document, http.get(path), 404)


WRONG_CHATS: list[tuple[Mapping[str, Any], str]] = [
    ({"temperature": -1}, "temperature"),
    ({"top_p": 2}, "top_p"),
    ({"n": 0}, "n"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stream_options": {"include_usage": "maybe"}}, "stream_options.include_usage"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
    ({"tool_choice": "required"}, "tool_choice"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG_CHATS, ids=lambda value: str(value)[:50])
def test_wrong_fields(
    http: httpx.Client, document: Published, fields: Mapping[str, Any], param: str
) -> None:
    for stream in ({}, {"stream": True}):
        body = {**CHAT, **stream, **fields}
        response = http.post("/v1/chat/completions", content=json.dumps(body))
        error = check(document, response, 400)
        assert error["type"] == "invalid_request_error"
        assert (error["param"] or "").startswith(param), error
