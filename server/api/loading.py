"""Streams that begin before their model is loaded.

An error that comes at once has its HTTP status. Later, the stream has begun: comments tell how far
the load has come, so that no client and no proxy takes it for dead, and an error is an event.
"""

import asyncio
from collections.abc import Callable, Coroutine

from fastapi import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from server.api.deps import Services
from server.api.envelope import Visit, visit_of
from server.api.errors import ClientGone, Told, told
from server.api.sse import FIXED, PING, EventStream, data_event
from server.errors import ModelNotFound

PATIENCE_S = 1.0
"""Seconds in which most of what is wrong comes to light."""

TELL_S = 1.0
"""Between two comments."""


async def once_loaded(
    request: Request,
    services: Services,
    model: str,
    stream: bool,
    answer: Coroutine[None, None, Response],
    failure: Callable[[Told], bytes] = data_event,
) -> Response:
    """What `answer` comes to; if it is a stream whose model must be loaded first, one that begins
    before. `failure` writes the event of an error that comes after that.
    """
    if not stream or _is_ready(services, model):
        return await answer
    visit = visit_of(request)
    visit.hears = True
    answering = asyncio.create_task(answer)
    try:
        done, _ = await asyncio.wait({answering}, timeout=PATIENCE_S)
    except asyncio.CancelledError:
        answering.cancel()
        raise
    if done:
        return answering.result()
    return _Loading(answering, lambda: _comment(services, visit), visit, failure)


def _is_ready(services: Services, model: str) -> bool:
    try:
        return services.pool.usable(model)
    except ModelNotFound:
        return True  # said by the answer


def _comment(services: Services, visit: Visit) -> bytes:
    """How far the load has come."""
    progress = services.pool.progress(visit.model)
    if progress is not None:
        return f": loading {progress:.0%}\n\n".encode()
    if _is_ready(services, visit.model):
        return PING  # the model is there, it looks at the prompt
    return b": waiting for memory\n\n"


class _Loading(Response):
    """A stream of comments until `answering` has come to a response, then that one's events."""

    def __init__(
        self,
        answering: asyncio.Task[Response],
        comment: Callable[[], bytes],
        visit: Visit,
        failure: Callable[[Told], bytes],
    ):
        super().__init__(headers=FIXED, media_type="text/event-stream")
        del self.headers["content-length"]
        self._answering = answering
        self._comment = comment
        self._visit = visit
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin: Message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(begin)
            while not self._answering.done():
                await self._tell(self._comment())
                await asyncio.wait({self._answering}, timeout=TELL_S)
            response = self._answering.result()
        except ClientGone:
            return
        except Exception as error:
            answer = told(error)
            self._visit.status = answer.kind.status
            await self._tell(self._failure(answer))
            await send({"type": "http.response.body", "body": b""})
            return
        finally:
            self._answering.cancel()
        assert isinstance(response, EventStream)
        for name, value in response.headers.items():
            if name.startswith("x-corral"):
                # Too late for a header.
                await self._tell(f": {name}: {value}\n\n".encode())

        async def go_on(message: Message) -> None:
            if message["type"] != "http.response.start":
                await send(message)

        await response(scope, receive, go_on)

    async def _tell(self, event: bytes) -> None:
        await self._visit.send({"type": "http.response.body", "body": event, "more_body": True})
