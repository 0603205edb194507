"""Every error in the one shape, with the pairs that clients expect."""

import inspect
import logging
from collections.abc import Mapping

import pytest

from server import errors
from server.api.errors import KINDS, shown, told
from server.errors import CorralError
from tests.api.scripted import error_of, fail, house

PAIRS: Mapping[type[CorralError], tuple[int, str, str | None]] = {
    errors.InvalidRequest: (400, "invalid_request_error", None),
    errors.ContextLengthExceeded: (400, "invalid_request_error", "context_length_exceeded"),
    errors.UnsupportedParameter: (400, "invalid_request_error", "unsupported_parameter"),
    errors.PreviousNotStored: (400, "invalid_request_error", "previous_response_not_found"),
    errors.RequestRefused: (400, "invalid_request_error", "request_refused"),
    errors.ModelNotFound: (404, "invalid_request_error", "model_not_found"),
    errors.NotStored: (404, "invalid_request_error", None),
    errors.QueueFull: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.Unavailable: (503, "server_error", "unavailable"),
    errors.Busy: (409, "conflict_error", "busy"),
    errors.ModelLoadError: (500, "server_error", "model_load_error"),
    errors.PullError: (502, "server_error", "pull_error"),
    errors.WorkerDied: (500, "server_error", "worker_died"),
    errors.EngineError: (500, "server_error", "engine_error"),
}


def test_every_error_is_mapped() -> None:
    tree = {
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, CorralError)
    }
    assert tree == set(KINDS)
    assert tree - {CorralError} == set(PAIRS)


@pytest.mark.parametrize("cls", PAIRS)
@pytest.mark.parametrize("stream", [False, True])
async def test_before_the_headers(cls: type[CorralError], stream: bool) -> None:
    error = cls("5,120 tokens, context of 4,096", param="messages", retry_after=1.2)
    async with house(fail(error)) as h:
        response = await h.chat(stream=stream)
    status, type_, code = PAIRS[cls]
    assert response.status_code == status
    assert error_of(response) == {
        "message": "5,120 tokens, context of 4,096",
        "type": type_,
        "param": "messages",
        "code": code,
    }
    assert response.headers["retry-after"] == "2"
    hopeless = cls in (errors.Busy, errors.ModelLoadError, errors.RequestRefused)
    assert response.headers.get("x-should-retry") == ("false" if hopeless else None)


@pytest.mark.parametrize("cls", [errors.QueueFull, errors.Unavailable])
def test_busy_answers_always_say_when_to_come_back(cls: type[CorralError]) -> None:
    assert told(cls("busy")).headers == {"retry-after": "1"}
    assert told(cls("busy", retry_after=7.5)).headers == {"retry-after": "8"}


async def test_the_frameworks_own_validation_has_the_same_shape() -> None:
    async with house() as h:

        @h.app.get("/validated")
        async def validated(limit: int) -> int:  # pyright: ignore[reportUnusedFunction]
            return limit

        response = await h.client.get("/validated", params={"limit": "x"})
    assert response.status_code == 400
    assert error_of(response)["param"] == "query.limit"


def test_a_class_of_its_own_is_told_as_its_parent() -> None:
    class Worse(errors.ModelLoadError):
        pass

    assert told(Worse("bad")).kind == KINDS[errors.ModelLoadError]


def test_unforeseen_errors_are_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    answer = told(KeyError("secret"))
    assert answer.kind.status == 500
    assert b"secret" not in answer.body()
    assert "secret" in caplog.text


def test_server_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    told(errors.InvalidRequest("theirs"))
    told(errors.Unavailable("not yet"))
    assert not caplog.records
    told(errors.WorkerDied("ours"))
    assert caplog.records[0].levelno == logging.ERROR


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", None, "the body is not JSON: "),
        (b"{", None, "the body is not JSON: "),
        (b"\xff", None, "the body is not JSON: "),
        (b'{"model": "\\ud800"}', None, "the body is not JSON: "),
        (b"[" * 5000, None, "the body is not JSON: "),
        (b"[]", None, "Input should be an object, got a list"),
        (b"null", None, "Input should be an object, got null"),
        (b"{}", "model", "model: Field required"),
        (b'{"model": null}', "model", "model: Field required"),
        (b'{"model": 5}', "model", "model: Input should be a valid string, got 5"),
        (b'{"model": "org/tiny"}', "messages", "messages: Field required"),
    ],
)
async def test_malformed_bodies(body: bytes, param: str | None, message: str) -> None:
    async with house() as h:
        response = await h.client.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert error["message"].startswith(message)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (400, ", got 400"),
        ("hot", ', got "hot"'),
        (None, ", got null"),
        (True, ", got true"),
        ([1], ", got a list"),
        ((1,), ", got a list"),
        ({}, ", got an object"),
        (object(), ""),
        ("x" * 100, ', got "' + "x" * 59 + "..."),
        ("\ud800", ', got "\\ud800"'),
    ],
)
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text
