"""Memory: how many bytes all models together may take, and what one takes of them."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from server.config import PoolConfig
from server.placement import Need
from server.pool.machine import CGROUP, free_ram

MARGIN = 0.05
"""Share of the memory that is left to others."""

# llama.cpp itself knows best which GPUs it can use; it is loaded in a process that ends at once.
ASK = (
    "import json; from server.engine.llama import backend_init, gpu_memory; "
    "log = backend_init(); print(json.dumps(gpu_memory()))"
)

WITHOUT_GPU = ("base", "blas", "cpu", "rpc")
"""Parts of llama.cpp that are there in builds for the processor."""


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


def free_gpus() -> tuple[int, ...]:
    """Free bytes of each GPU; none where llama.cpp finds none or cannot be loaded."""
    if not has_gpu_backend():
        return ()
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    if asked.returncode:
        return ()
    found: list[int] = json.loads(asked.stdout.splitlines()[-1])
    return tuple(found)


def has_gpu_backend() -> bool:
    """Whether llama.cpp was built for anything but the processor. Takes no time: looks at names."""
    spec = importlib.util.find_spec("llama_cpp")
    folders = [] if spec is None else [Path(f) for f in spec.submodule_search_locations or ()]
    names = {file.name for folder in folders for file in (folder / "lib").glob("*ggml-*")}
    parts = {name.partition("ggml-")[2].partition(".")[0].partition("-")[0] for name in names}
    return bool(parts - {*WITHOUT_GPU})
