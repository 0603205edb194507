"""How much memory this machine has free, and how much a process of it takes."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

from server.need import Need
from server.pool.offers import Room

CGROUP = Path("/sys/fs/cgroup")

# llama.cpp itself knows best which GPUs it can use; it is loaded in a process that ends at once.
ASK = (
    "from server.engine.llama import backend_init, gpu_memory; "
    "log = backend_init(); print(*gpu_memory())"
)

WITHOUT_GPU = ("base", "blas", "cpu", "rpc")
"""Parts of llama.cpp that are there in builds for the processor."""

MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ +(?P<path>.*)")
"""The line of /proc/PID/smaps that begins a mapping."""


def room() -> Room:
    """What is free now, on the GPUs that llama.cpp was built for too."""
    found = free()
    return Room(found.ram, sum(found.gpus))


def ram() -> int:
    """Bytes of RAM that are free now."""
    return free_ram(psutil.virtual_memory().available, CGROUP)


def free() -> Need:
    """What is free now, on each GPU that llama.cpp was built for too."""
    free_ram, gpus = ram(), free_gpus()
    # On Apple's machines the GPU has the same memory as the rest.
    return Need(max(0, free_ram - sum(gpus)) if sys.platform == "darwin" else free_ram, gpus)


def free_ram(available: int, cgroup: Path) -> int:
    """`available` bytes, or what the limit of our container leaves, if that is less."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return available  # no limit: no such file, or the word max
    return max(0, min(available, limit - used + _cached(cgroup)))


def _cached(cgroup: Path) -> int:
    """Bytes that count as used by a container, but are pages of files and can go."""
    try:
        lines = (cgroup / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    sizes = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
    return max(0, sizes.get("file", 0) - sizes.get("shmem", 0))


def free_gpus() -> tuple[int, ...]:
    """Free bytes of each GPU; none where llama.cpp finds none or cannot be loaded."""
    if not has_gpu_backend():
        return ()
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    lines = asked.stdout.splitlines()
    return tuple(map(int, lines[-1].split())) if asked.returncode == 0 and lines else ()


def has_gpu_backend() -> bool:
    """Whether llama.cpp was built for anything but the processor. Takes no time: looks at names."""
    spec = importlib.util.find_spec("llama_cpp")
    folders = [] if spec is None else [Path(f) for f in spec.submodule_search_locations or ()]
    names = {file.name for folder in folders for file in (folder / "lib").glob("*ggml-*")}
    parts = {name.partition("ggml-")[2].partition(".")[0].partition("-")[0] for name in names}
    return bool(parts - {*WITHOUT_GPU})


class Taken(NamedTuple):
    """Bytes of RAM that a process takes."""

    own: int
    """That nobody else can have."""
    mapped: int
    """Of a file that it maps, those in RAM: they go when somebody needs the room."""
    read: int
    """Of `mapped`, those that it has read since `watch`, or ever."""

    @property
    def needed(self) -> int:
        """What must stay, for the process to go on as it did."""
        return self.own + self.read


def watch(pid: int) -> None:
    """From now on note which pages a process reads. On Linux."""
    Path(f"/proc/{pid}/clear_refs").write_text("1")


def taken(pid: int, mapped: Path) -> Taken:
    """What a process takes of RAM, apart from the file `mapped`. Raises OSError, psutil.Error."""
    smaps = Path(f"/proc/{pid}/smaps")
    if not smaps.exists():
        return Taken(psutil.Process(pid).memory_info().rss, 0, 0)
    own = there = read = 0
    inside = False
    for line in smaps.read_text().splitlines():
        if begin := MAPPING.fullmatch(line):
            inside = begin["path"] == str(mapped.resolve())
            continue
        name, _, value = line.partition(":")
        if name == "Rss" and not inside:
            own += _kib(value)
        elif name == "Rss":
            there += _kib(value)
        elif name == "Referenced" and inside:
            read += _kib(value)
    return Taken(own, there, read)


def _kib(value: str) -> int:
    return int(value.split()[0]) * 1024
