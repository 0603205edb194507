"""Inquiries: what must be known of models before it is decided whether there is room for them.

* What the devices have free that a model names. RPC servers have to be free for that, and the model
  has them until they have answered: they have one client at a time.
* What llama.cpp would take, where the estimate does not tell: where a little less of it, or more,
  makes a difference.

While one model waits for an answer the others go on, and it keeps its place in the queue.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from server import placement
from server.errors import CorralError, EngineError
from server.need import Need
from server.pool.catalog import Entry
from server.pool.claims import Claims
from server.pool.eviction import Held, undecided
from server.pool.oracle import Oracle

log = logging.getLogger(__name__)


class Inquiries:
    """Those that go on. What comes of them goes to the claims. Used on the event loop only."""

    def __init__(
        self, claims: Claims, oracle: Oracle, on_answer: Callable[[Entry, CorralError | None], None]
    ):
        """`on_answer` is called with a model that need not wait any more, and with the reason if it
        cannot be loaded.
        """
        self._claims = claims
        self._oracle = oracle
        self._on_answer = on_answer
        self._running: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, Held] = {}
        """Who has which RPC servers until they have answered."""
        self._vain: dict[str, Entry] = {}
        """Models whose dry run has failed: not tried again before they have changed."""

    @property
    def asked(self) -> list[Held]:
        """RPC servers that are being asked, as models that are about to go."""
        return list(self._asked.values())

    def pending(self, entry: Entry, total: Need, held: Sequence[Held]) -> bool:
        """Whether the model is to wait for an answer; it is asked for if it was not."""
        if entry.id in self._running:
            return True
        if self._claims.outdated(entry):
            taken = frozenset[str]().union(*(each.need.servers for each in (*held, *self.asked)))
            if entry.servers & taken:
                return False  # it waits for them as for memory
            need = Need(0, servers=entry.servers)
            self._asked[entry.id] = Held(entry.id, need, True, False, 0.0, 0.0, leaving=True)
            self._begin(entry, self._meet(entry))
            return True
        between = self._claims.range(entry, total)
        vain = entry.id in self._vain and self._vain[entry.id].same_as(entry)
        if vain or between is None or not undecided(*between, total, held):
            return False
        self._begin(entry, self._rehearse(entry, total))
        return True

    def _begin(self, entry: Entry, asking: Coroutine[Any, Any, CorralError | None]) -> None:
        async def run() -> None:
            try:
                error = await asking
            finally:
                del self._running[entry.id]
                self._asked.pop(entry.id, None)
            self._on_answer(entry, error)

        self._running[entry.id] = asyncio.create_task(run())

    async def _meet(self, entry: Entry) -> CorralError | None:
        """What it cannot be loaded for."""
        try:
            self._claims.meet(entry, await self._oracle.devices(entry))
        except CorralError as error:
            return error
        return None

    async def _rehearse(self, entry: Entry, total: Need) -> None:
        assert entry.header is not None
        placed = placement.least(entry.header, entry.config.engine, total)
        try:
            more = await self._oracle.beyond(entry, placed)
        except EngineError as error:
            log.info("%s: the estimate has to do: %s", entry.id, error)
            self._vain[entry.id] = entry
        else:
            text = "%s: by a dry run, %+.0f MiB of RAM beside the estimate of %.0f"
            log.info(text, entry.id, more.ram / 2**20, placed.need.ram / 2**20)
            self._claims.hear(entry, more)

    async def close(self) -> None:
        """End them; nobody is told."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
