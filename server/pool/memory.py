"""Memory: how many bytes all models together may take, and what one takes of them."""

from collections.abc import Iterable

import psutil

from server.config import PoolConfig
from server.need import MARGIN, Need
from server.pool.machine import CGROUP, free_gpus, free_ram


class Memory:
    """The budget: as configured, else what is free, less a margin. Used on the event loop only."""

    def __init__(self, config: PoolConfig):
        self.config = config
        self._gpus = free_gpus()

    def total(self, workers: Iterable[int]) -> Need:
        """Bytes for all models, those of the processes `workers` among them.

        Weights that are mapped from their files do not count as taken: the system gives their
        memory to others where it is needed, so they are in what is free.
        """
        ram = self.config.ram_budget
        if ram is None:
            system = psutil.virtual_memory()
            free = free_ram(system.available, CGROUP) + sum(map(private_bytes, workers))
            ram = max(0, free - int(MARGIN * system.total))
        gpus = self.config.gpu_budget or (int(n * (1 - MARGIN)) for n in self._gpus)
        return Need(ram, tuple(gpus))


def private_bytes(pid: int) -> int:
    """What goes with the process: all of its memory but pages of files. 0 if it has gone."""
    try:
        taken = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    # Not every system tells what is shared.
    return max(0, taken.rss - getattr(taken, "shared", 0))


def resident_bytes(pid: int) -> int:
    """All memory of the process, pages of files too. 0 if it has gone."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0
