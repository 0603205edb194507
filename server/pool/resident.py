"""Resident: one model of the catalogue as the pool knows it."""

import asyncio
import time
from dataclasses import dataclass, field

from server.config import PoolConfig
from server.errors import CorralError, ModelLoadError
from server.need import Need
from server.pool.catalog import Entry
from server.pool.claims import Claim
from server.pool.events import State, StateChanged
from server.pool.eviction import Held
from server.pool.keeper import Keeper
from server.pool.suspects import Suspects

COOL_DOWN_S = 5.0
"""Seconds for which a model that could not be loaded is not tried again."""


@dataclass
class Resident:
    """What the pool notes of one model. Times are of the monotonic clock."""

    entry: Entry
    pinned: bool
    suspects: Suspects = field(default_factory=Suspects)
    keeper: Keeper | None = None
    claim: Claim | None = None
    """What it takes, from the moment its load begins until it is gone."""
    wanted_since: float | None = None
    """Since when somebody waits for it to be loaded."""
    n_waiters: int = 0
    """Requests that wait for it."""
    n_users: int = 0
    """Requests that hold it."""
    last_used: float = 0.0
    keep_alive_s: float | None = None
    """As the last request wants it; None: as configured."""
    draining: bool = False
    """It takes no new requests, as another waits for its memory."""
    next: Entry | None = None
    """What it becomes once it is unloaded."""
    removed: bool = False
    """It goes once it is unloaded."""
    error: CorralError | None = None
    """Why the last load failed, at time `failed_at`."""
    failed_at: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever those who wait for it should look again."""
    told: StateChanged | None = None
    """What listeners know."""
    leaving_because: str | None = None
    idle_timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> State:
        """For those who look; routes ask for a worker instead."""
        if self.keeper is None:
            if self.wanted_since is not None:
                return "waiting"
            return "unloaded" if self.error is None else "failed"
        if self.keeper.closing is not None:
            return "unloading"
        return "loading" if self.keeper.serving is None else "ready"

    @property
    def progress(self) -> float | None:
        """Of its load, 0 to 1; None while it is not loaded."""
        if self.keeper is None or self.state != "loading":
            return None
        return 0.0 if self.keeper.worker is None else self.keeper.worker.progress

    @property
    def busy(self) -> bool:
        """It has requests, or some that are about to come: they wait for its load, or have just
        been told of its end.
        """
        if self.n_users or (self.n_waiters and (self.usable or self.state == "loading")):
            return True
        worker = None if self.keeper is None else self.keeper.serving
        return worker is not None and worker.busy

    @property
    def usable(self) -> bool:
        """It takes new requests."""
        going = self.draining or self.next is not None or self.removed
        return not going and self.keeper is not None and self.keeper.serving is not None

    @property
    def cooling(self) -> bool:
        """It could not be loaded, not long ago. Where only room was missing, there may be now."""
        failed = isinstance(self.error, ModelLoadError)
        return failed and time.monotonic() - self.failed_at < COOL_DOWN_S

    @property
    def pid(self) -> int | None:
        """Of its process."""
        worker = None if self.keeper is None else self.keeper.worker
        return None if worker is None else worker.pid

    def held(self, load_s: float) -> Held:
        """As eviction sees it, while it takes memory."""
        assert self.keeper is not None
        return Held(
            id=self.entry.id,
            need=Need(0) if self.claim is None else self.claim.need,
            busy=self.busy,
            pinned=self.pinned,
            last_used=self.last_used,
            load_s=load_s,
            leaving=self.keeper.closing is not None,
            draining=self.draining,
            ready_since=self.keeper.ready_at,
        )

    def idle_after(self, config: PoolConfig) -> float | None:
        """Seconds of idleness after which it is unloaded; None: never."""
        if self.pinned:
            return None
        if self.keep_alive_s is not None:
            return None if self.keep_alive_s < 0 else self.keep_alive_s
        own = self.entry.config.idle_unload_s
        return (config.idle_unload_s if own is None else own) or None

    def become(self, entry: Entry) -> None:
        """Be this model from now on, or from when the worker of the former has gone."""
        if self.keeper is not None and not self.entry.same_as(entry):
            self.next = entry
            return
        self.next = None
        if not self.entry.same_as(entry):
            self.error = None
        if self.entry.config.pinned != entry.config.pinned:
            self.pinned = entry.config.pinned
        self.entry = entry
        if self.keeper is not None:
            self.keeper.reconfigure(entry.config)

    def emptied(self) -> None:
        """Its memory is free."""
        self.keeper = self.claim = self.leaving_because = None
        self.draining = False
        if self.next is not None:
            entry, self.next = self.next, None
            self.become(entry)

    def news(self) -> StateChanged | None:
        """What listeners do not know yet."""
        reason = self.leaving_because if self.state == "unloading" else None
        if self.state == "failed" and self.error is not None:
            reason = self.error.message
        now = (self.state, self.progress, reason)
        told = self.told
        if told is not None and now == (told.state, told.progress, told.reason):
            return None
        if told is None and self.state == "unloaded":
            return None
        self.told = StateChanged(self.entry.id, *now)
        return self.told
