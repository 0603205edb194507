"""Events: what happens to the models, for whoever listens."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["unloaded", "waiting", "loading", "ready", "unloading", "failed"]
"""waiting: for memory. failed: the last load did, and nobody has tried again."""

MOST_KEPT = 1000
"""Events that a listener may be behind; then the oldest are lost to it."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A model is in this state now, or further on in it."""

    model: str
    state: State
    progress: float | None = None
    """Of a load, 0 to 1."""
    reason: str | None = None
    """Why it failed or was unloaded."""
    at: float = field(default_factory=time.time)
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The configuration was read again."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    restart_needed: tuple[str, ...]
    """Settings that have changed and hold from the next start on."""
    at: float = field(default_factory=time.time)


PoolEvent = StateChanged | Reloaded


class Listener:
    """Every event from the moment it was made. Whoever holds it closes it."""

    def __init__(self, left: Callable[["Listener"], None]):
        self._left = left
        self._events = deque[PoolEvent](maxlen=MOST_KEPT)
        self._arrived = asyncio.Event()
        self._closed = False

    def push(self, event: PoolEvent) -> None:
        """Take the next event."""
        self._events.append(event)
        self._arrived.set()

    async def next(self) -> PoolEvent | None:
        """The next event; None: it is closed, and there are no more."""
        while not self._events and not self._closed:
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Listen no more. Safe to call again."""
        self._closed = True
        self._arrived.set()
        self._left(self)


class Events:
    """Tells all listeners. Used on the event loop only."""

    def __init__(self) -> None:
        self._listeners = set[Listener]()

    def publish(self, event: PoolEvent) -> None:
        """Tell everybody."""
        for listener in self._listeners:
            listener.push(event)

    def listen(self) -> Listener:
        """Of everything from now on."""
        listener = Listener(self._listeners.discard)
        self._listeners.add(listener)
        return listener

    def close(self) -> None:
        """There is nothing more to tell."""
        for listener in tuple(self._listeners):
            listener.close()
