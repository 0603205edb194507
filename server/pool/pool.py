"""ModelPool: which models are loaded. Routes ask it for a worker and never look at a state."""

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from server.config import Config, ModelConfig
from server.errors import Busy, Unavailable
from server.need import Need
from server.pool.cache_folder import cache_folder
from server.pool.catalog import Catalog, read_catalog
from server.pool.claims import Claims
from server.pool.devices import Devices
from server.pool.events import Events, Reloaded
from server.pool.footprints import Footprints
from server.pool.oracle import Oracle
from server.pool.process import COMMAND
from server.pool.resident import Resident
from server.pool.residents import Residents
from server.pool.spare import Spare
from server.pool.worker import Worker

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""The least that clients are told to wait."""


class Lease:
    """The right to use a worker: while it is held, the model makes no room for others."""

    def __init__(self, worker: Worker, release: Callable[[], None]):
        self.worker = worker
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give it back. Safe to call again."""
        release, self._release = self._release, None
        if release is not None:
            release()


class ModelPool:
    """The models of a catalogue and their workers. Used on the event loop only."""

    def __init__(
        self,
        config: Config,
        spare: Spare | None = None,
        catalog: Catalog | None = None,
        footprints: Footprints | None = None,
        oracle: Oracle | None = None,
    ):
        """`spare` gives it processes; the pool closes it.

        Without a `catalog` it is read, by `config`. Raises ConfigError as that does.
        """
        self.events = Events()
        self._catalog = read_catalog(config) if catalog is None else catalog
        footprints = footprints or Footprints(cache_folder() / "footprints.json")
        self._claims = Claims(footprints)
        spare = spare or Spare(COMMAND)
        self._residents = Residents(
            config, self._catalog, self._claims, self.events, spare, oracle or Oracle()
        )
        self._started = self._stopping = False

    @property
    def config(self) -> Config:
        """As it was last read."""
        return self._residents.config

    @property
    def models(self) -> Mapping[str, ModelConfig]:
        """Ids and how they are run: configured ones in the order of the file, then found ones."""
        return self._catalog.models

    @property
    def catalog(self) -> Catalog:
        """What is known of the models."""
        return self._catalog

    @property
    def residents(self) -> Mapping[str, Resident]:
        """For those who look; only the pool changes them."""
        return self._residents.all

    @property
    def default_model(self) -> str | None:
        """The configured model for requests that name none."""
        return self.config.default_model

    def resolve(self, model: str) -> str:
        """The id of what a request calls `model`. Raises ModelNotFound."""
        return self._catalog.resolve(model)

    def created(self, model: str) -> int:
        """When the model's file was last changed, in seconds since 1970; 0 if it is missing."""
        try:
            return int(self.models[model].path.stat().st_mtime)
        except OSError:
            return 0

    def ready(self) -> bool:
        """No model that is to be preloaded is still to come, and we are not stopping."""
        preloaded = self._preloaded
        return (
            not self._stopping
            and (self._started or not preloaded)
            and not self._residents.preloading
            and all(self.residents[id].state != "loading" for id in preloaded)
        )

    @property
    def _preloaded(self) -> list[str]:
        return [id for id, model in self.models.items() if model.preload]

    def usable(self, model: str) -> bool:
        """Whether a request would be taken at once. Raises ModelNotFound."""
        return self.residents[self.resolve(model)].usable

    def serving(self, model: str) -> Worker | None:
        """The worker of the model with this id, if it is loaded; for those who only look."""
        resident = self.residents.get(model)
        return None if resident is None or resident.keeper is None else resident.keeper.serving

    def progress(self, model: str) -> float | None:
        """Of the load of the model with this id, 0 to 1; None if it is not being loaded."""
        resident = self.residents.get(model)
        return None if resident is None else resident.progress

    def loads(self) -> Mapping[str, tuple[int, int]]:
        """Requests (running, waiting) of each loaded model."""
        return {
            id: (worker.n_running, worker.n_waiting)
            for id, resident in self.residents.items()
            if resident.keeper is not None and (worker := resident.keeper.serving) is not None
        }

    def devices(self, model: str) -> Devices | None:
        """What the model with this id computes on, where its RPC servers cannot be asked again:
        a loaded model has one.
        """
        entry = self._catalog.entries[model]
        taken = frozenset[str]().union(*(held.need.servers for held in self._residents.held()))
        return self._claims.devices(entry) if entry.servers & taken else None

    def budget(self) -> tuple[Need, Need]:
        """Bytes that all models may take together, and that they take."""
        taken = Need(0)
        for held in self._residents.held():
            taken = taken.plus(held.need)
        return self._residents.total(), taken

    async def start(self) -> None:
        """Begin to load the models that are to be preloaded. Does not wait for them.

        Safe to call again.
        """
        if self._started:
            return
        now = time.monotonic()
        for number, id in enumerate(self._preloaded):
            # One after the other has its turn, in the order of the file.
            self._residents.preload(self.residents[id], now + number * 1e-6)
        self._started = True

    async def close(self) -> None:
        """Stop all workers."""
        self._stopping = True
        await self._residents.close()

    async def lease(
        self, model: str, wait_s: float | None = None, keep_alive_s: float | None = None
    ) -> Lease:
        """The worker of `model`, an id or any name of one, loaded if need be.

        `keep_alive_s`: how long the model is kept when it is idle again; negative: for good.
        Raises ModelNotFound, ModelLoadError, or Unavailable: it does not fit, or takes longer than
        `wait_s`.
        """
        resident = self.residents[self.resolve(model)]
        try:
            async with asyncio.timeout(wait_s):
                with self._wanted(resident):
                    while not resident.usable:
                        await self._wait(resident)
        except TimeoutError:
            raise self._slow(resident, wait_s or 0.0) from None
        assert resident.keeper is not None
        assert resident.keeper.serving is not None
        resident.n_users += 1
        resident.keep_alive_s = keep_alive_s
        resident.last_used = time.monotonic()
        self._residents.changed(resident)
        return Lease(resident.keeper.serving, lambda: self._release(resident))

    def _release(self, resident: Resident) -> None:
        resident.n_users -= 1
        resident.last_used = time.monotonic()
        self._residents.changed(resident)

    @contextmanager
    def _wanted(self, resident: Resident) -> Generator[None]:
        """While somebody waits for it."""
        if resident.error is not None and not resident.cooling:
            resident.error = None
        resident.n_waiters += 1
        try:
            yield
        finally:
            resident.n_waiters -= 1
            if not resident.n_waiters and resident.wanted_since is not None:
                resident.wanted_since = None
                self._residents.changed(resident)

    async def _wait(self, resident: Resident) -> None:
        """Until it may be usable. Raises what it waits for in vain."""
        if self._stopping:
            raise Unavailable("the server is stopping")
        if resident.error is not None:
            raise resident.error
        if resident.removed:
            raise Unavailable(f"model {resident.entry.id} was removed from the configuration")
        if resident.keeper is None and resident.wanted_since is None:
            resident.wanted_since = time.monotonic()
            self._residents.changed(resident)
        resident.changed.clear()
        await resident.changed.wait()

    def _slow(self, resident: Resident, waited_s: float) -> Unavailable:
        """What those are told who have waited too long."""
        id, load_s = resident.entry.id, self._claims.load_s(resident.entry)
        if resident.keeper is None or resident.draining:
            wait_s = self.config.pool.swap_after_s + load_s
            room = self._server_in_use(resident) or "memory that others use"
            message = f"model {id} still waits after {waited_s:g} s for {room}"
        else:
            progress = resident.progress or 0.0
            wait_s = load_s * (1 - progress)
            message = f"model {id} is still loading after {waited_s:g} s ({progress:.0%})"
        return Unavailable(message, retry_after=max(RETRY_S, wait_s))

    def _server_in_use(self, resident: Resident) -> str | None:
        """An RPC server of its that another model has, and which."""
        wanted = resident.entry.servers
        for held in self._residents.held():
            for endpoint in wanted:
                if held.id != resident.entry.id and endpoint in held.need.servers:
                    return f"the RPC server {endpoint}, which {held.id} uses"
        return None

    async def unload(self, model: str, force: bool = False) -> bool:
        """Unload it and wait until its memory is free; whether it was loaded.

        Raises ModelNotFound, or Busy where it has requests, unless by `force`, which fails them.
        """
        resident = self.residents[self.resolve(model)]
        if resident.busy and not force:
            raise Busy(f"model {resident.entry.id} is in use; force ends its requests")
        if resident.n_waiters:
            # Else they would have it loaded again at once.
            resident.error = Unavailable(f"model {resident.entry.id} was unloaded")
        leaving = self._residents.unload(resident, "as asked")
        if leaving is None:
            return False
        await asyncio.shield(leaving)
        return True

    def pin(self, model: str, pinned: bool) -> None:
        """Have it never give way, or have it do so again. Raises ModelNotFound."""
        resident = self.residents[self.resolve(model)]
        resident.pinned = pinned
        self._residents.changed(resident)

    async def reload(self, config: Config) -> Reloaded:
        """Go on with this configuration, and with the files that are there now.

        Only models that are different restart. Raises ConfigError, and nothing has changed; but
        the default model may have gone if the configuration is the same object as before.
        """
        # Where only files have changed, the loss of one is no reason to ignore the others.
        same = config is self.config
        catalog = await asyncio.to_thread(read_catalog, config, default_may_miss=same)
        before, after = self._catalog.entries, catalog.entries
        known = before.keys() & after.keys()
        told = Reloaded(
            added=tuple(id for id in after if id not in before),
            changed=tuple(id for id in after if id in known and not before[id].same_as(after[id])),
            removed=tuple(id for id in before if id not in after),
            restart_needed=tuple(
                f"server.{name}"
                for name in AT_START
                if getattr(config.server, name) != getattr(self.config.server, name)
            ),
        )
        self._catalog = catalog
        self._residents.replace(catalog, config)
        log.info(
            "reloaded: %d added, %d changed, %d removed",
            len(told.added), len(told.changed), len(told.removed),
        )  # fmt: skip
        self.events.publish(told)
        return told


AT_START = ("host", "port", "log_level", "max_body", "store", "store_budget")
"""Settings of the server that hold from one start to the next."""
