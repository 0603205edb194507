"""Fields that are not served: named in a header, refused, or let pass, as configured."""

import httpx
import pytest

from tests.e2e.asking import Body, chat_body, user
from tests.e2e.conftest import Lone
from tests.e2e.wire import error_of, fold_chat, whole_chat

UNSERVED: Body = {"store": True, "modalities": ["audio"], "no_such_field": 1}
SERVED: Body = {
    "user": "me",
    "metadata": {"a": "b"},
    "tools": [],
    "logprobs": True,
    "seed": None,
    "store": False,
    "modalities": ["text"],
    "response_format": {"type": "text"},
}


def ask(http: httpx.Client, body: Body) -> httpx.Response:
    fields = {"max_tokens": 1, **body}
    return http.post("/v1/chat/completions", json=chat_body(user("Hi"), fields))


def test_ignored_fields_are_named(http: httpx.Client) -> None:
    response = ask(http, UNSERVED)
    assert response.headers["x-corral-ignored"] == "store, modalities, no_such_field"
    whole_chat(response.text)
    response = ask(http, {**UNSERVED, "stream": True})
    assert response.headers["x-corral-ignored"] == "store, modalities, no_such_field"
    fold_chat(response.content, include_usage=False)


def test_served_fields_are_not_named(http: httpx.Client) -> None:
    response = ask(http, SERVED)
    assert "x-corral-ignored" not in response.headers
    whole_chat(response.text)


@pytest.mark.parametrize("name", UNSERVED)
def test_a_strict_server_refuses(strict: Lone, name: str) -> None:
    response = ask(strict.http, {name: UNSERVED[name]})
    assert response.status_code == 400
    error = error_of(response.content)
    assert error["code"] == "unsupported_parameter"
    assert error["param"] == name
    assert name in error["message"]


def test_a_strict_server_serves_the_rest(strict: Lone) -> None:
    whole_chat(ask(strict.http, SERVED).text)


def test_a_lax_server_says_nothing(lax: Lone) -> None:
    response = ask(lax.http, UNSERVED)
    assert "x-corral-ignored" not in response.headers
    whole_chat(response.text)
