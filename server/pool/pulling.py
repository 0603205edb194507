"""A pull beside the event loop: on a thread of its own, ended when nobody follows it any more."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the library takes a while to import: the thread does it
    from server.pool.offers import Choice
    from server.pool.pull import Progress, Pulled, Report

INTERVAL_S = 0.25
"""Between two reports of progress."""


class _Left(BaseException):
    """Nobody follows the pull."""


class Pulling:
    """A pull that runs. One task follows it: the choice, some progress, at last what is there."""

    def __init__(self, work: "Callable[[Report], list[Pulled]]"):
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._events = asyncio.Queue["Choice | Progress | list[Pulled] | Exception"]()
        self._left = threading.Event()
        self._due = 0.0
        """When progress is told again; the thread's."""
        # Nothing waits for it: what it leaves is sound at any moment.
        threading.Thread(target=self._run, name="pull", daemon=True).start()

    async def next(self) -> "Choice | Progress | list[Pulled]":
        """What comes next; a list is the last. Raises what the pull raised."""
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        """Have it end with the bytes that come next, or with the next attempt."""
        self._left.set()

    def _run(self) -> None:
        try:
            self._tell(self._work(self._report))
        except _Left:
            pass
        except Exception as error:
            self._tell(error)

    def _report(self, event: "Choice | Progress") -> None:
        from server.pool.pull import Progress

        if self._left.is_set():
            raise _Left
        if isinstance(event, Progress) and event.done < event.size:
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + INTERVAL_S
        self._tell(event)

    def _tell(self, event: "Choice | Progress | list[Pulled] | Exception") -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed, and we end with the process
            self._left.set()
