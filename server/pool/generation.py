"""Generation: one request's events in the API process."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import assert_never

from server.errors import CorralError
from server.ipc import Accepted, Answer, Delta, Echo, Event, Failed, Finished


class Generation:
    """One answer as it arrives. Owned by the response; `close` cancels what has not ended.

    The worker feeds it with `push`, always on the event loop's thread, so there are no locks, and
    one task reads.
    Deltas that nobody has read yet are merged: a slow reader gets larger chunks, not a longer
    queue.
    """

    def __init__(self, cancel: Callable[[], None]):
        self._cancel = cancel
        self._events: deque[Event] = deque()
        self._arrived: asyncio.Future[None] | None = None
        """What the reader waits for. An asyncio.Event, for any number of readers, costs more."""
        self._ended = False

    def push(self, event: Event) -> None:
        """Take the worker's next event of this request."""
        if isinstance(event, Delta) and self._events:
            last = self._events[-1]
            if isinstance(last, Delta):
                event = Delta(
                    event.id,
                    last.text + event.text,
                    last.n_tokens + event.n_tokens,
                    last.scores + event.scores,
                )
                self._events.pop()
        self._ended = self._ended or isinstance(event, Finished | Failed)
        self._events.append(event)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def fail(self, error: CorralError) -> None:
        """End with `error`, unless it has ended already."""
        if not self._ended:
            self.push(Failed(0, error))

    def close(self) -> None:
        """Nobody reads any more: cancel, unless it has ended. Safe to call again."""
        if not self._ended:
            self._ended = True
            self._cancel()

    async def accepted(self) -> Accepted:
        """Wait for the first event. Raises the worker's error if the request was refused."""
        match await self._next():
            case Accepted() as event:
                return event
            case Failed(error=error):
                raise error
            case Delta() | Echo() | Finished() | Answer() as event:
                raise AssertionError(f"the worker sent {event} before Accepted")

    async def __aiter__(self) -> AsyncIterator[Echo | Delta | Finished]:
        """The events after `accepted`, of which Finished is the last. Raises the worker's error."""
        while True:
            event = await self._next()
            match event:
                case Delta() | Echo():
                    yield event
                case Finished():
                    yield event
                    return
                case Failed(error=error):
                    raise error
                case Accepted():
                    raise AssertionError("the worker accepted a request twice")
                case Answer():
                    raise AssertionError("the worker answered a question that was not asked")
                case _:
                    assert_never(event)

    async def _next(self) -> Event:
        if not self._events:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._events.popleft()
