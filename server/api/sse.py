"""Server-sent events; the only importer of sse_starlette.

Intentional:

* Lines end in LF. sse_starlette's default is CRLF, which some clients do not read.
* Events are `data:` only, and handed over as bytes, which sse_starlette passes on as they are.
* Pings are comments: the OpenAI SDK skips them, while it would parse an event.
* The response owns the answers and closes them in `__call__`, not in its generator: a generator
  that was never started has no cleanup.
* A stream that the server's stop cuts short ends with an error event, so that no client takes
  what it has for the whole.
* Any error after the headers becomes an error event and the end of the stream, without `[DONE]`.
  This is the exception handler of an answer that has begun, so it catches all there is.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from server.api.envelope import Visit
from server.api.errors import told
from server.errors import Unavailable

DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """A stream of `data:` events that ends in `[DONE]`, and calls `close` on every exit."""

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        close: Callable[[], None],
        visit: Visit,
        ping_s: float,
        headers: Mapping[str, str],
    ):
        self._events = _complete(events, visit)
        self._close = close
        self._visit = visit
        super().__init__()
        self._response = EventSourceResponse(
            self._events,
            headers={**headers, "Cache-Control": "no-cache"},
            media_type="text/event-stream; charset=utf-8",
            ping=ping_s,
            ping_message_factory=_ping,
            sep="\n",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = ended = gone = False

        async def watched_send(message: Message) -> None:
            nonlocal begun, ended
            begun = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        async def watched_receive() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        try:
            await self._response(scope, watched_receive, watched_send)
            if not ended and not gone:
                await self._stop(begun, scope, receive, send)
        finally:
            self._close()
            await self._events.aclose()

    async def _stop(self, begun: bool, scope: Scope, receive: Receive, send: Send) -> None:
        """End with an error: the server was told to stop, and sse_starlette just goes."""
        answer = told(Unavailable("the server is stopping"))
        self._visit.status = answer.kind.status
        if begun:
            await send({"type": "http.response.body", "body": _event(answer.body())})
        else:
            await answer.response()(scope, receive, send)


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _ping() -> ServerSentEvent:
    return ServerSentEvent(comment="ping", sep="\n")


async def _complete(events: AsyncGenerator[bytes], visit: Visit) -> AsyncGenerator[bytes]:
    """The events and `[DONE]`, or what there was and an error."""
    async with aclosing(events):
        try:
            async for event in events:
                yield event
        except Exception as error:
            answer = told(error)
            visit.status = answer.kind.status
            yield _event(answer.body())
        else:
            yield DONE
