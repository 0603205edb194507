"""Server-sent events.

Intentional:

* No library: one that wraps each event cost a third of this process's time per token, measured
  beside the decoder, which needs all cores.
* Lines end in LF; some clients do not read CRLF.
* Pings are comments: the OpenAI SDK skips them, while it would parse an event.
* The response owns the answers and closes them in `__call__`, not in its generator: a generator
  that was never started has no cleanup.
* Any error after the headers becomes an error event and the end of the stream, without `done`.
  This is the exception handler of an answer that has begun, so it catches all there is.
* Body parts go straight to the server. The layers between look at the start of a response only.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from server.api.deps import until_gone
from server.api.envelope import Visit
from server.api.errors import ClientGone, Told, told
from server.errors import Unavailable

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
FIXED = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Headers of every stream."""


def data_event(answer: Told) -> bytes:
    """An error as the SDKs find it in a stream that has events of one kind."""
    return b"data: " + answer.body() + b"\n\n"


class EventStream(StreamingResponse):
    """A stream of events that ends in `done`, and calls `close` on every exit.

    `failure` writes the event that ends it in place of `done`.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        close: Callable[[], None],
        visit: Visit,
        ping_s: float,
        headers: Mapping[str, str],
        done: bytes = DONE,
        failure: Callable[[Told], bytes] = data_event,
    ):
        super().__init__(events, headers={**headers, **FIXED}, media_type="text/event-stream")
        self._events = events
        self._close = close
        self._visit = visit
        self._ping_s = ping_s
        self._done = done
        self._error_event = failure
        self._silent = True
        """Nothing has been sent since the last ping was due."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        begun = False
        try:
            async with until_gone(Request(scope, receive)):
                await send(start)
                begun = True
                async with self._pinging():
                    await self._send(await self._pump())
                await send({"type": "http.response.body", "body": b""})
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # The server's patience with running requests is at its end.
            if begun:
                await self._send(self._failure(Unavailable("the server is stopping")))
            raise
        finally:
            self._close()
            await self._events.aclose()

    async def _pump(self) -> bytes:
        """Send the events as they come; returns what ends them."""
        send = self._visit.send
        while True:
            try:
                event = await anext(self._events)
            except StopAsyncIteration:
                return self._done
            except Exception as error:
                return self._failure(error)
            self._silent = False
            await send({"type": "http.response.body", "body": event, "more_body": True})

    async def _send(self, event: bytes) -> None:
        await self._visit.send({"type": "http.response.body", "body": event, "more_body": True})

    def _failure(self, error: Exception) -> bytes:
        answer = told(error)
        self._visit.status = answer.kind.status
        return self._error_event(answer)

    @asynccontextmanager
    async def _pinging(self) -> AsyncGenerator[None]:
        """Send a comment whenever the stream has been silent for a while."""

        async def ping() -> None:
            while True:
                self._silent = True
                await asyncio.sleep(self._ping_s)
                if self._silent:
                    await self._send(PING)

        task = asyncio.create_task(ping()) if self._ping_s else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
