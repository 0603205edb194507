"""Residents: which models are in memory, and who comes and goes."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial

from server.config import Config
from server.errors import CorralError, Unavailable
from server.need import Need
from server.pool.catalog import Catalog, Entry
from server.pool.claims import Claims
from server.pool.events import Events
from server.pool.eviction import Held, Verdict, Waiting, next_steps
from server.pool.inquiries import Inquiries
from server.pool.keeper import Keeper
from server.pool.memory import Memory, resident_bytes
from server.pool.oracle import Oracle
from server.pool.refusal import no_room
from server.pool.resident import Resident
from server.pool.spare import Spare
from server.threads import cores, share

log = logging.getLogger(__name__)

SPARE_S = 0.05
"""Seconds after which the process for the next load is begun."""

MADE_ROOM = "to make room for {}"


class Residents:
    """All models, loaded or not, by id. Used on the event loop only.

    `preloading`: ids of those to be loaded unasked that have not served yet.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        claims: Claims,
        events: Events,
        spare: Spare,
        oracle: Oracle,
    ):
        self.config = config
        self.memory = Memory(config.pool)
        self.preloading = set[str]()
        self._claims = claims
        self._events = events
        self._spare = spare
        self._inquiries = Inquiries(claims, oracle, self._on_answer)
        self._all = {id: _resident(entry) for id, entry in catalog.entries.items()}
        self._present: dict[str, Resident] = {}
        """Those that are in memory or wanted there: few of many."""
        self._advancing: asyncio.Handle | None = None
        self._due = 0.0
        """When `_advancing` happens, by the loop's clock."""
        self._stopping = False

    @property
    def all(self) -> Mapping[str, Resident]:
        """By id."""
        return self._all

    def total(self) -> Need:
        """What all of them together may take: bytes, and the RPC servers that they know of."""
        present = self._present.values()
        pids = (each.pid for each in present)
        servers = (each.entry.servers for each in present)
        total = self.memory.total(pid for pid in pids if pid is not None)
        return total._replace(servers=frozenset().union(*servers))

    def held(self) -> list[Held]:
        """Those that take memory."""
        return [
            each.held(self._claims.load_s(each.entry))
            for each in self._present.values()
            if each.keeper is not None
        ]

    async def close(self) -> None:
        """Unload all, for good."""
        self._stopping = True
        if self._advancing is not None:
            self._advancing.cancel()
        for each in self._present.values():
            _stop_timer(each)
            each.changed.set()
        self._spare.close()
        await self._inquiries.close()
        keepers = [each.keeper for each in self._present.values() if each.keeper is not None]
        await asyncio.gather(*(keeper.close() for keeper in keepers))

    def unload(self, resident: Resident, reason: str) -> asyncio.Task[None] | None:
        """Have it leave the memory, with whatever it does; the task ends when it is gone."""
        if resident.keeper is None:
            return None
        if resident.keeper.closing is None:
            log.info("%s: unloaded, %s", resident.entry.id, reason)
            resident.leaving_because = reason
        return resident.keeper.close()

    def preload(self, resident: Resident, now: float) -> None:
        """Have it loaded if there is room."""
        self.preloading.add(resident.entry.id)
        resident.wanted_since = now
        self.changed(resident)

    def replace(self, catalog: Catalog, config: Config) -> None:
        """From now on these are the models. Those that have changed restart when they are idle."""
        self.config = config
        self.memory.config = config.pool
        for id, resident in list(self._all.items()):
            entry = catalog.entries.get(id)
            if entry is None:
                resident.removed = True
            else:
                resident.removed = False
                resident.become(entry)
            self.changed(resident)
        for id, entry in catalog.entries.items():
            if id not in self._all:
                self._all[id] = _resident(entry)
                if entry.config.preload:
                    self.preload(self._all[id], time.monotonic())
        # In the order of the configuration.
        order = {id: number for number, id in enumerate(catalog.entries)}
        self._all = dict(sorted(self._all.items(), key=lambda each: order.get(each[0], len(order))))
        self.preloading &= order.keys()

    def changed(self, resident: Resident) -> None:
        """Something is different with it: tell everybody, and see what follows."""
        if resident.keeper is not None:
            self._look_at(resident, resident.keeper)
        id = resident.entry.id
        if self._all.get(id) is not resident:
            return  # it was removed, and another may be called so by now
        if resident.keeper is not None or resident.wanted_since is not None:
            self._present[id] = resident
        else:
            self._present.pop(id, None)
            if resident.removed:
                self._all.pop(id, None)
        news = resident.news()
        if news is not None:
            self._events.publish(news)
        resident.changed.set()
        self._advance_at(0.0)

    def _look_at(self, resident: Resident, keeper: Keeper) -> None:
        """Note what its keeper has come to."""
        if keeper.error is not None:
            resident.error, resident.failed_at = keeper.error, time.monotonic()
            resident.emptied()
        elif keeper.gone:
            resident.emptied()
        elif keeper.serving is not None:
            self.preloading.discard(resident.entry.id)
            pid = resident.pid
            if keeper.load_s and pid is not None and resident.claim is not None:
                ram = resident_bytes(pid)
                claim = self._claims.learn(resident.entry, resident.claim, ram, keeper.load_s)
                resident.claim = claim
                keeper.load_s = 0.0
        self._watch_idleness(resident)

    def _watch_idleness(self, resident: Resident) -> None:
        _stop_timer(resident)
        keeper = resident.keeper
        if keeper is None or keeper.serving is None or resident.busy:
            return
        if resident.next is not None or resident.removed:
            self.unload(resident, "as its configuration has changed")
            return
        after = resident.idle_after(self.config.pool)
        if after is not None:
            reason = f"after {after:g} s without a request"
            later = asyncio.get_running_loop().call_later
            resident.idle_timer = later(after, partial(self.unload, resident, reason))

    def _advance_at(self, when: float) -> None:
        """Look what is to be done at that time, or before."""
        if self._stopping:
            return
        if self._advancing is not None:
            if self._due <= when:
                return
            self._advancing.cancel()
        self._due = when
        self._advancing = asyncio.get_running_loop().call_at(when, self._advance)

    def _advance(self) -> None:
        """Load, unload and drain what is to be; share out the cores."""
        self._advancing = None
        if any(each.wanted_since is not None for each in self._present.values()):
            self._make_room(self.total(), time.monotonic())
        else:
            self._drain(frozenset())
        self._share_threads()

    def _make_room(self, total: Need, now: float) -> None:
        held = self.held()
        waiting = [
            Waiting(
                id,
                self._claims.least(each.entry, total),
                each.wanted_since,
                may_evict=each.n_waiters > 0,
            )
            for id, each in self._present.items()
            if each.keeper is None and each.wanted_since is not None and not each.removed
            if not self._inquiries.pending(each.entry, total, held)
        ]
        held += self._inquiries.asked
        steps = next_steps(waiting, total, held, now, self.config.pool.swap_after_s)
        for id, verdict in steps.refuse:
            need = next(each.need for each in waiting if each.id == id)
            self._refuse(self._all[id], need, total, verdict)
        for n, id in enumerate(steps.load):
            others = [each.need for each in waiting if each.id in steps.load[n + 1 :]]
            self._load(self._all[id], total, others)
        self._drain(frozenset(steps.drain))
        for id in steps.unload:
            self.unload(self._all[id], MADE_ROOM.format(steps.room_for))
        if steps.look_again is not None:
            # Both clocks are the monotonic one, of a loop that may have one of its own.
            loop = asyncio.get_running_loop()
            self._advance_at(loop.time() + steps.look_again - now)

    def _on_answer(self, entry: Entry, error: CorralError | None) -> None:
        """There is more to decide by, or a reason why it cannot be loaded."""
        resident = self._all.get(entry.id)
        if resident is None:
            return
        if error is not None and resident.entry.same_as(entry):
            self._fail(resident, error)
        else:
            self.changed(resident)

    def _load(self, resident: Resident, total: Need, others: Sequence[Need]) -> None:
        """Into what is free, but for what `others` need that are loaded after it."""
        free = total
        for need in (*(each.need for each in self.held()), *others):
            free = free.less(need)
        claim = self._claims.grant(resident.entry, free)
        resident.claim = claim
        resident.wanted_since = None
        config = claim.config
        if config.engine.n_threads is None:
            n_busy = 1 + sum(each.busy for each in self._present.values() if each is not resident)
            engine = config.engine.model_copy(update={"n_threads": share(cores(), n_busy)})
            config = config.model_copy(update={"engine": engine})
        self._spare.stays = len(self._all) > 1
        resident.keeper = Keeper(
            resident.entry.id,
            config,
            resident.suspects,
            self._spare,
            self.config.server.log_level,
            lambda: self.changed(resident),
        )
        self.changed(resident)
        if self._spare.stays:
            # Once this one has taken its process, and beside the load.
            asyncio.get_running_loop().call_later(SPARE_S, self._prepare)

    def _prepare(self) -> None:
        if not self._stopping:
            self._spare.prepare()

    def _refuse(self, resident: Resident, need: Need, total: Need, verdict: Verdict) -> None:
        self._fail(resident, Unavailable(no_room(resident.entry.id, need, total, verdict)))

    def _fail(self, resident: Resident, error: CorralError) -> None:
        """Those who wait for it wait in vain."""
        resident.error, resident.failed_at = error, time.monotonic()
        resident.wanted_since = None
        log.error("%s", error)
        self.changed(resident)

    def _drain(self, ids: frozenset[str]) -> None:
        for id, resident in self._present.items():
            draining = id in ids and resident.state == "ready"
            if draining != resident.draining:
                resident.draining = draining
                resident.changed.set()

    def _share_threads(self) -> None:
        """Busy models compute with as many threads as there are cores, all together."""
        busy = [each for each in self._present.values() if each.busy]
        n = share(cores(), len(busy))
        for each in busy:
            worker = None if each.keeper is None else each.keeper.serving
            if worker is not None and each.entry.config.engine.n_threads is None:
                worker.use_threads(n)


def _resident(entry: Entry) -> Resident:
    return Resident(entry, entry.config.pinned)


def _stop_timer(resident: Resident) -> None:
    if resident.idle_timer is not None:
        resident.idle_timer.cancel()
        resident.idle_timer = None
