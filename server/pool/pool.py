"""ModelPool: which model is loaded. Routes ask it for a worker and never look at a state."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.config import Config, ModelConfig
from server.errors import CorralError, Unavailable
from server.pool.catalog import Catalog, read_catalog
from server.pool.suspects import Suspects
from server.pool.worker import COMMAND, CrashedInWarmUp, Worker

log = logging.getLogger(__name__)

BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before a start, by the number of failures in a row."""

COOL_DOWN_S = 5.0
"""Seconds for which a model that could not be loaded is not tried again."""


@dataclass
class _Resident:
    """One model of the catalogue: its worker while it has one, and its record of failures."""

    config: ModelConfig
    suspects: Suspects = field(default_factory=Suspects)
    worker: Worker | None = None
    keeper: asyncio.Task[None] | None = None
    """Loads the model and restarts its worker when it dies."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a worker is ready, `error` has a new value, or the pool stops."""
    error: CorralError | None = None
    """Why the last load failed, at monotonic time `failed_at`."""
    failed_at: float = 0.0
    use_extra_bufts: bool = True
    """As configured; False after a worker crashed in its warm-up decode."""


class ModelPool:
    """The models of a catalogue and their workers. Used on the event loop only."""

    def __init__(
        self, config: Config, command: tuple[str, ...] = COMMAND, catalog: Catalog | None = None
    ):
        """Without a `catalog` it is read, by `config`. Raises ConfigError as that does."""
        self._config = config
        self._command = command
        self._catalog = read_catalog(config) if catalog is None else catalog
        self._residents = {
            id: _Resident(model, use_extra_bufts=model.engine.use_extra_bufts)
            for id, model in self._catalog.models.items()
        }
        self._stopping = False

    @property
    def models(self) -> Mapping[str, ModelConfig]:
        """Ids and how they are run: configured ones in the order of the file, then found ones."""
        return self._catalog.models

    @property
    def catalog(self) -> Catalog:
        """What is known of the models."""
        return self._catalog

    @property
    def default_model(self) -> str | None:
        """The configured model for requests that name none."""
        return self._config.default_model

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
        """Every model that is to be preloaded serves, and we are not stopping."""
        return not self._stopping and all(
            resident.worker is not None and resident.worker.alive
            for resident in self._residents.values()
            if resident.config.preload
        )

    def loads(self) -> Mapping[str, tuple[int, int]]:
        """Requests (running, waiting) of each loaded model."""
        return {
            id: (worker.n_running, worker.n_waiting)
            for id, resident in self._residents.items()
            if (worker := resident.worker) is not None and worker.alive
        }

    async def start(self) -> None:
        """Begin to load the models that are to be preloaded. Does not wait for them."""
        for id, resident in self._residents.items():
            if resident.config.preload:
                self._keep(id, resident)

    async def close(self) -> None:
        """Stop all workers."""
        self._stopping = True
        for resident in self._residents.values():
            resident.changed.set()
        keepers = [r.keeper for r in self._residents.values() if r.keeper is not None]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def worker(self, model: str) -> Worker:
        """The worker of `model`, an id or any name of one, loaded if need be.

        Raises ModelNotFound, ModelLoadError, or Unavailable when it takes too long.
        """
        model = self.resolve(model)
        resident = self._residents[model]
        if resident.keeper is None and not self._stopping:
            cooling = time.monotonic() - resident.failed_at < COOL_DOWN_S
            if resident.error is not None and cooling:
                raise resident.error
            self._keep(model, resident)
        wait_s = self._config.server.load_wait_s
        try:
            async with asyncio.timeout(wait_s):
                return await self._serving(resident)
        except TimeoutError:
            progress = 0.0 if resident.worker is None else resident.worker.progress
            raise Unavailable(
                f"model {model} is still loading after {wait_s:g} s ({progress:.0%})",
                retry_after=5.0,
            ) from None

    async def _serving(self, resident: _Resident) -> Worker:
        while True:
            if self._stopping:
                raise Unavailable("the server is stopping")
            if resident.worker is not None and resident.worker.alive:
                return resident.worker
            if resident.error is not None:
                raise resident.error
            resident.changed.clear()
            await resident.changed.wait()

    def _keep(self, id: str, resident: _Resident) -> None:
        resident.error = None
        resident.keeper = asyncio.create_task(self._keeper(id, resident))

    async def _keeper(self, id: str, resident: _Resident) -> None:
        """Load the model, and again with growing delays each time its worker dies."""
        failures = 0
        while True:
            await asyncio.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
            try:
                worker = await self._load(id, resident)
            except CorralError as error:
                # The file is at fault, not the moment: only another request tries again.
                log.error("%s", error)
                resident.error, resident.failed_at = error, time.monotonic()
                resident.keeper = None
                resident.changed.set()
                return
            resident.changed.set()
            try:
                how = await worker.ended()
            except asyncio.CancelledError:
                await worker.close()
                raise
            failures = 1 if worker.n_finished else failures + 1
            log.error("%s: the worker died (%s); starting another", id, how)

    async def _load(self, id: str, resident: _Resident) -> Worker:
        """Start a worker; once more without repacked weights if its first decode crashes."""
        try:
            return await self._start(id, resident)
        except CrashedInWarmUp as error:
            if not resident.use_extra_bufts:
                raise
            log.warning(
                "%s. On a processor with AMX this happens when llama-cpp-python was built by "
                "a gcc that drops AMX's tile configuration (12.2 does). Starting again without "
                "repacked weights, which is slow; to cure it, rebuild with CFLAGS and CXXFLAGS "
                "set to '-fno-tree-dse -fno-dse' (`make serve` does).",
                error,
            )
            resident.use_extra_bufts = False
            return await self._start(id, resident)

    async def _start(self, id: str, resident: _Resident) -> Worker:
        config = resident.config
        if not resident.use_extra_bufts:
            engine = config.engine.model_copy(update={"use_extra_bufts": False})
            config = config.model_copy(update={"engine": engine})
        worker = Worker(id, config, resident.suspects, self._config.server.log_level)
        resident.worker = worker
        await worker.start(self._command)
        return worker
