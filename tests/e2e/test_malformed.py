"""Random bodies: an answer or an error of the one shape, and the server lives on."""

import json
import random
import socket
from typing import Any

import httpx
import pytest

from tests.e2e.asking import MODEL, scrape
from tests.e2e.process import Corral
from tests.e2e.wire import error_of, fold_chat, fold_completion, whole_chat, whole_completion

N_BODIES = 60
"""Of each kind, for each endpoint."""

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**63,
    -(10**30),
    1e308,
    "",
    "text",
    "\ud800",
    "\0",
    "<|im_end|>",
    [],
    [None],
    [[]],
    ["a", 1],
    {},
    {"a": {"b": []}},
    [{"role": "user", "content": "Hi"}],
    [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "assistant", "tool_calls": [{}]}],
]
FIELDS = [
    "messages",
    "prompt",
    "model",
    "n",
    "stop",
    "stream",
    "stream_options",
    "seed",
    "temperature",
    "top_p",
    "top_k",
    "logit_bias",
    "max_completion_tokens",
    "chat_template_kwargs",
    "cache_prompt",
    "user",
    "tools",
    "dry_sequence_breakers",
    "continue_final_message",
    "mirostat",
    "surprise",
]
VALID = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
}


def random_bytes(rng: random.Random) -> bytes:
    """Anything at all, or JSON with a flaw."""
    if rng.random() < 0.5:
        return rng.randbytes(rng.randrange(200))
    body = bytearray(json.dumps({"model": MODEL, **VALID["/v1/completions"]}).encode())
    for _ in range(rng.randrange(1, 4)):
        body[rng.randrange(len(body))] = rng.randrange(256)
    return bytes(body)


def random_json(rng: random.Random, path: str) -> bytes:
    """A sound body of which one to three fields are not, or are missing."""
    body: dict[str, Any] = {"model": MODEL, "max_tokens": 1, **VALID[path]}
    for _ in range(rng.randrange(1, 4)):
        body[rng.choice(FIELDS)] = rng.choice(VALUES)
    if rng.random() < 0.1:
        return json.dumps(rng.choice(VALUES)).encode()
    return json.dumps(body).encode()


def check(path: str, response: httpx.Response) -> None:
    """An error that names what is wrong, or a sound answer."""
    is_chat = path.endswith("/chat/completions")
    if response.status_code != 200:
        assert response.status_code in (400, 404)
        error_of(response.content)
    elif response.headers["content-type"].startswith("text/event-stream"):
        fold = fold_chat if is_chat else fold_completion
        fold(response.content, b'"usage"' in response.content)
    else:
        (whole_chat if is_chat else whole_completion)(response.text)


@pytest.mark.parametrize("path", VALID)
def test_no_body_hurts(corral: Corral, http: httpx.Client, path: str) -> None:
    rng = random.Random(path)
    workers = {worker.pid for worker in corral.workers()}
    for _ in range(N_BODIES):
        for body in (random_bytes(rng), random_json(rng, path)):
            response = http.post(path, content=body)
            try:
                check(path, response)
            except AssertionError as error:
                error.add_note(f"{body!r} -> {response.status_code} {response.text}")
                raise
    assert workers <= {worker.pid for worker in corral.workers()}
    assert scrape(http).load(MODEL) == (0, 0)


@pytest.mark.parametrize(
    "request_",
    [
        b"\0\1\2\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ],
)
def test_no_http_at_all(url: str, http: httpx.Client, request_: bytes) -> None:
    address = httpx.URL(url)
    assert address.port is not None
    with socket.create_connection((address.host, address.port), timeout=30) as connection:
        connection.sendall(request_)
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 4")
    assert http.get("/healthz").status_code == 200
