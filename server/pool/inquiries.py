"""Inquiries: what must be known of models before it is decided whether there is room for them.

Only where the estimate does not tell: where a little less of it, or more, makes a difference. While
llama.cpp is asked about one model, the others go on; it keeps its place in the queue.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from server import placement
from server.errors import EngineError
from server.need import Need
from server.placement import Placement
from server.pool.catalog import Entry
from server.pool.claims import Claims
from server.pool.eviction import Held, undecided
from server.pool.oracle import Oracle

log = logging.getLogger(__name__)


class Inquiries:
    """Those that go on. What comes of them goes to the claims. Used on the event loop only."""

    def __init__(self, claims: Claims, oracle: Oracle, on_answer: Callable[[str], None]):
        """`on_answer` is called with the id of a model that need not wait any more."""
        self._claims = claims
        self._oracle = oracle
        self._on_answer = on_answer
        self._running: dict[str, asyncio.Task[None]] = {}
        self._vain: dict[str, Entry] = {}
        """Models of which nothing could be learnt: not tried again before they have changed."""

    def pending(self, entry: Entry, total: Need, held: Sequence[Held]) -> bool:
        """Whether the model is to wait for an answer; it is asked for if it was not."""
        id, header = entry.id, entry.header
        if id in self._running:
            return True
        known = id in self._vain and self._vain[id].same_as(entry)
        between = self._claims.range(entry, total)
        if known or header is None or between is None or not undecided(*between, total, held):
            return False
        placed = placement.least(header, entry.config.engine, total)
        self._running[id] = asyncio.create_task(self._rehearse(entry, placed))
        return True

    async def _rehearse(self, entry: Entry, placed: Placement) -> None:
        try:
            more = await self._oracle.beyond(entry, placed)
        except EngineError as error:
            log.info("%s: the estimate has to do: %s", entry.id, error)
            self._vain[entry.id] = entry
        else:
            text = "%s: by a dry run, %+.0f MiB of RAM beside the estimate of %.0f"
            log.info(text, entry.id, more.ram / 2**20, placed.need.ram / 2**20)
            self._claims.hear(entry, more)
        del self._running[entry.id]
        self._on_answer(entry.id)

    async def close(self) -> None:
        """End them; nobody is told."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
