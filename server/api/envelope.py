"""What every request gets: an id, a clock, a count, and an answer even if our code fails."""

import logging
import uuid
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import told
from server.metrics import Metrics
from server.pool.pool import Lease

log = logging.getLogger(__name__)

REQUEST_ID_CHARS = 128

GONE = 499
"""Counted for clients that hung up before an answer; nobody sees it."""


@dataclass(slots=True)
class Visit:
    """One HTTP request while it is served. Written by its route and its response only."""

    arrived: float
    request_id: str
    send: Send
    """The server's own, for bodies that come in many parts."""
    model: str = ""
    """The configured id of the model that was asked for."""
    status: int = GONE
    """The HTTP status, or that of an error after the headers."""
    hears: bool = False
    """The client is told how far the load of its model has come."""
    leases: list[Lease] = field(default_factory=list[Lease])
    """Of the models that it uses, given back at its end."""


def visit_of(request: Request) -> Visit:
    """The visit that the envelope opened for this request."""
    return cast("Visit", request.scope["state"]["visit"])


class Envelope:
    """ASGI middleware: request ids, processing time, counting, and a last resort for errors."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = Visit(perf_counter(), _request_id(scope), send)
        scope.setdefault("state", {})["visit"] = visit
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                visit.status = message["status"]
                elapsed_ms = round((perf_counter() - visit.arrived) * 1000)
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", visit.request_id.encode()),
                    (b"openai-processing-ms", b"%d" % elapsed_ms),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if begun:
                raise
            await told(error).response()(scope, receive, send_with_headers)
        finally:
            for lease in visit.leases:
                lease.release()
            self._metrics.count_request(visit.model, _endpoint(scope), visit.status)


def _request_id(scope: Scope) -> str:
    """The client's id if it is sane, else a fresh one."""
    for name, value in cast("list[tuple[bytes, bytes]]", scope["headers"]):
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if 0 < len(text) <= REQUEST_ID_CHARS and text.isascii() and text.isprintable():
                return text
    return f"req_{uuid.uuid4().hex}"


def _endpoint(scope: Scope) -> str:
    """The route's path without /v1; empty for unknown URLs, of which there are too many."""
    route = scope.get("route")
    return cast("str", route.path).removeprefix("/v1") if route is not None else ""
