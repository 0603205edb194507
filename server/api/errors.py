"""The only place where errors become HTTP: `{"error": {message, type, param, code}}`.

InvalidRequest           400  invalid_request_error
  ContextLengthExceeded  400  ... context_length_exceeded
  UnsupportedParameter   400  ... unsupported_parameter
  PreviousNotStored      400  ... previous_response_not_found
  RequestRefused         400  ... request_refused, never to be retried
ModelNotFound            404  ... model_not_found
NotStored                404  invalid_request_error
QueueFull                429  rate_limit_error, rate_limit_exceeded, Retry-After
Unavailable              503  server_error, unavailable, Retry-After
Busy                     409  conflict_error, busy, never to be retried
ModelLoadError           500  server_error, model_load_error, never to be retried
PullError                502  server_error, pull_error
WorkerDied               500  server_error, worker_died
EngineError              500  server_error, engine_error
anything else            500  server_error, internal_error; the message stays in the log
"""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from server import errors

log = logging.getLogger(__name__)

INVALID = "invalid_request_error"
SHOWN_CHARS = 60
"""How much of a bad value a message repeats."""


class ClientGone(Exception):
    """The client hung up before its answer began."""


class Kind(NamedTuple):
    """How one class of errors is told to clients."""

    status: int
    type: str
    code: str | None = None
    retry: bool = True
    """False: tells clients that sending the same again cannot help."""
    retry_after: float | None = None
    """Seconds to wait where the error itself does not say."""


KINDS: Mapping[type[errors.CorralError], Kind] = {
    errors.InvalidRequest: Kind(400, INVALID),
    errors.ContextLengthExceeded: Kind(400, INVALID, "context_length_exceeded"),
    errors.UnsupportedParameter: Kind(400, INVALID, "unsupported_parameter"),
    errors.PreviousNotStored: Kind(400, INVALID, "previous_response_not_found"),
    errors.RequestRefused: Kind(400, INVALID, "request_refused", retry=False),
    errors.ModelNotFound: Kind(404, INVALID, "model_not_found"),
    errors.NotStored: Kind(404, INVALID),
    errors.QueueFull: Kind(429, "rate_limit_error", "rate_limit_exceeded", retry_after=1.0),
    errors.Unavailable: Kind(503, "server_error", "unavailable", retry_after=1.0),
    errors.Busy: Kind(409, "conflict_error", "busy", retry=False),
    errors.ModelLoadError: Kind(500, "server_error", "model_load_error", retry=False),
    errors.PullError: Kind(502, "server_error", "pull_error"),
    errors.WorkerDied: Kind(500, "server_error", "worker_died"),
    errors.EngineError: Kind(500, "server_error", "engine_error"),
    errors.CorralError: Kind(500, "server_error"),
}

INTERNAL = Kind(500, "server_error", "internal_error")


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a client sees it."""

    kind: Kind
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def body(self) -> bytes:
        error = {
            "message": self.message,
            "type": self.kind.type,
            "param": self.param,
            "code": self.kind.code,
        }
        # ASCII only: a message may repeat a lone surrogate of the client's.
        return json.dumps({"error": error}).encode()

    def response(self) -> Response:
        headers = dict(self.headers)
        if not self.kind.retry:
            headers["x-should-retry"] = "false"
        return Response(self.body(), self.kind.status, headers, JSONResponse.media_type)


def told(error: Exception) -> Told:
    """What to tell the client. Errors that nobody foresaw are logged, not shown."""
    match error:
        case errors.CorralError():
            kind = next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)
            headers: dict[str, str] = {}
            after = kind.retry_after if error.retry_after is None else error.retry_after
            if after is not None:
                headers["retry-after"] = str(max(1, math.ceil(after)))
            if kind.status == 500:
                log.error("%s: %s", type(error).__name__, error.message)
            return Told(kind, error.message, error.param, headers)
        case HTTPException():
            type_ = INVALID if error.status_code < 500 else "server_error"
            return Told(Kind(error.status_code, type_), error.detail, None, error.headers or {})
        case _:
            log.error("unexpected error", exc_info=error)
            return Told(INTERNAL, "internal server error; the log has the details")


def invalid(error: ValidationError | RequestValidationError) -> errors.InvalidRequest:
    """The first fault of a body, by its field's path."""
    fault: ErrorDetails = error.errors()[0]
    path = ".".join(str(part) for part in fault["loc"] if not _is_tag(part))
    if fault["type"] == "json_invalid":
        return errors.InvalidRequest(f"the body is not JSON: {fault['msg']}")
    message = fault["msg"].removeprefix("Value error, ")
    message = f"{path}: {message}" if path else message
    if fault["type"] == "unsupported":
        return errors.UnsupportedParameter(message, param=path)
    got = "" if fault["type"] in ("missing", "value_error") else shown(fault["input"])
    return errors.InvalidRequest(message + got, param=path or None)


def _is_tag(part: int | str) -> bool:
    """Whether `part` names an alternative of a union, as our unions' tags do, not a field."""
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def shown(value: object) -> str:
    """`, got ...`: the bad value where it is short and simple, else what kind of thing it is."""
    match value:
        case str() | int() | float() | None:
            text = json.dumps(value)
            if len(text) > SHOWN_CHARS:
                text = text[:SHOWN_CHARS] + "..."
        case list() | tuple():
            text = "a list"
        case dict():
            text = "an object"
        case _:
            return ""
    return f", got {text}"


def install(app: FastAPI) -> None:
    """Have `app` answer every foreseen error in the one shape."""
    app.add_exception_handler(errors.CorralError, _answer)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(ClientGone, _answer_nobody)


def _answer(_: Request, error: Exception) -> Response:
    return told(error).response()


def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return told(invalid(error)).response()


def _answer_http(request: Request, error: Exception) -> Response:
    """Unknown URLs and methods come with the framework's words; say which they were."""
    assert isinstance(error, HTTPException)
    answer = told(error)
    where = f"{request.method} {request.url.path}"
    headers = answer.headers
    match error.status_code:
        case 404:
            message = f"unknown URL: {where}"
        case 405:
            message = f"method not allowed: {where}"
            headers = {**headers, **_allowed(request)}
        case _:
            message = answer.message
    return Told(answer.kind, message, answer.param, headers).response()


def _allowed(request: Request) -> dict[str, str]:
    """The methods of this URL, as /openapi.json has them: the error tells the first route's."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return {}
    path = f"/v1{route.path.removeprefix('/v1')}"
    operations = cast("FastAPI", request.app).openapi()["paths"].get(path, {})
    methods = [method.upper() for method in cast("Mapping[str, object]", operations)]
    return {"Allow": ", ".join(methods)} if methods else {}


def _answer_nobody(_: Request, error: Exception) -> Response:
    log.debug("%s", error)
    return Response(status_code=499)
