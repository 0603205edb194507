"""Keeper: keeps one model's worker running, from its load until it is closed."""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from server.config import ModelConfig
from server.errors import CorralError
from server.pool.spare import Spare
from server.pool.suspects import Suspects
from server.pool.worker import CrashedInWarmUp, Worker

log = logging.getLogger(__name__)

BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before a start, by the number of failures in a row."""


class Keeper:
    """Loads the model, and again with growing delays each time its worker dies.

    `on_change` is called whenever something is different. Used on the event loop only.
    """

    def __init__(
        self,
        model: str,
        config: ModelConfig,
        suspects: Suspects,
        spare: Spare,
        log_level: str,
        on_change: Callable[[], None],
    ):
        self.worker: Worker | None = None
        self.error: CorralError | None = None
        """Why the load failed; then nothing more happens."""
        self.load_s = 0.0
        """How long the last load took; 0 before the first."""
        self.ready_at = math.inf
        """When the last load ended, by the monotonic clock; infinite before the first."""
        self.closing: asyncio.Task[None] | None = None
        self.gone = False
        """It has been closed, and its memory is free."""
        self._model = model
        self._config = config
        self._suspects = suspects
        self._spare = spare
        self._log_level = log_level
        self._on_change = on_change
        self._running = asyncio.create_task(self._run())

    @property
    def serving(self) -> Worker | None:
        """The worker, while it takes requests."""
        worker = self.worker
        return worker if worker is not None and worker.alive and self.closing is None else None

    def reconfigure(self, config: ModelConfig) -> None:
        """From now on everything but the engine is as in `config`."""
        self._config = config.model_copy(update={"engine": self._config.engine})
        if self.worker is not None:
            self.worker.config = self._config

    def close(self) -> asyncio.Task[None]:
        """End the worker; open requests fail. The task ends when its memory is free."""
        if self.closing is None:
            self.closing = asyncio.create_task(self._close())
            self._on_change()
        return self.closing

    async def _close(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})
        self.gone = True
        self._on_change()

    async def _run(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
            try:
                worker = await self._load()
            except CorralError as error:
                # The file is at fault, not the moment: only another request tries again.
                log.error("%s", error)
                self.error = error
                self._on_change()
                return
            self._on_change()
            try:
                how = await worker.ended()
            except asyncio.CancelledError:
                await worker.close()
                raise
            self._on_change()
            failures = 1 if worker.n_finished else failures + 1
            log.error("%s: the worker died (%s); starting another", self._model, how)

    async def _load(self) -> Worker:
        """Start a worker; once more without repacked weights if its first decode crashes."""
        try:
            return await self._start()
        except CrashedInWarmUp as error:
            engine = self._config.engine
            if not engine.use_extra_bufts:
                raise
            log.warning(
                "%s. On a processor with AMX this happens when llama-cpp-python was built by "
                "a gcc that drops AMX's tile configuration (12.2 does). Starting again without "
                "repacked weights, which is slow; to cure it, rebuild with CFLAGS and CXXFLAGS "
                "set to '-fno-tree-dse -fno-dse' (`make serve` does).",
                error,
            )
            slow = engine.model_copy(update={"use_extra_bufts": False})
            self._config = self._config.model_copy(update={"engine": slow})
            return await self._start()

    async def _start(self) -> Worker:
        began = time.monotonic()
        worker = Worker(self._model, self._config, self._suspects, self._log_level, self._on_change)
        self.worker = worker
        await worker.start(self._spare)
        self.ready_at = time.monotonic()
        self.load_s = self.ready_at - began
        return worker
