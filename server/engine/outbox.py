"""Outbox: events on their way to the server.

Where tokens come faster than anybody reads, those of some milliseconds go together: each message
wakes the server's process and its client's, on cores that the next token is computed with.
"""

import time
from collections.abc import Callable, Sized
from typing import Protocol

from server.ipc import Accepted, Delta, Event, Step
from server.packing import pack


class Queues(Protocol):
    """Who runs and who waits."""

    @property
    def running(self) -> Sized: ...
    @property
    def waiting(self) -> Sized: ...


class Outbox:
    """Packs events into steps. Text of a stream that has begun may wait, nothing else does."""

    queues: Queues | None = None
    """None for a model that does not generate."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        interval_ms: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Text waits for `interval_ms` at most, as far as the last two steps tell."""
        self._send = send
        self._interval_s = interval_ms / 1000
        self._clock = clock
        self._held: list[Event] = []
        self._new: set[int] = set()
        """Requests that have had no text yet."""
        self._sent = self._put = -1.0
        """When something was last sent, and last put in."""

    def put(self, events: list[Event]) -> None:
        """Send them, or keep them while the next ones will come in time."""
        now = self._clock()
        next_put, self._put = 2 * now - self._put, now
        self._held += events
        if self._is_urgent(events) or next_put - self._sent > self._interval_s:
            self._send_held(now)

    def flush(self) -> None:
        """Send what is kept: the next step will take longer."""
        if self._held:
            self._send_held(self._clock())

    def _is_urgent(self, events: list[Event]) -> bool:
        urgent = False
        for event in events:
            match event:
                case Delta(id=id) if id not in self._new:
                    continue
                case Accepted(id=id):
                    self._new.add(id)
                case _:
                    self._new.discard(event.id)
            urgent = True
        return urgent

    def _send_held(self, now: float) -> None:
        n_running = n_waiting = 0
        if self.queues is not None:
            n_running, n_waiting = len(self.queues.running), len(self.queues.waiting)
        step = Step(tuple(self._held), n_running, n_waiting)
        self._held.clear()
        self._sent = now
        self._send(pack(step))
