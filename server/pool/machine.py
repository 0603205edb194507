"""How much memory this machine has free."""

import subprocess
import sys
from pathlib import Path

import psutil

from server.pool.offers import Room

CGROUP = Path("/sys/fs/cgroup")

# llama.cpp itself knows best which GPUs it can use; it is loaded in a process that ends at once.
ASK = (
    "from server.engine.llama import backend_init, gpu_memory; "
    "log = backend_init(); print(sum(gpu_memory()))"
)


def room() -> Room:
    """What is free now, on the GPUs that llama.cpp was built for too."""
    ram, vram = free_ram(psutil.virtual_memory().available, CGROUP), free_vram()
    # On Apple's machines the GPU has the same memory as the rest.
    return Room(max(0, ram - vram) if sys.platform == "darwin" else ram, vram)


def free_ram(available: int, cgroup: Path) -> int:
    """`available` bytes, or what the limit of our container leaves, if that is less."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return available  # no limit: no such file, or the word max
    return max(0, min(available, limit - used))


def free_vram() -> int:
    """Free bytes of all GPUs; 0 where llama.cpp finds none or cannot be loaded."""
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    return int(asked.stdout.split()[-1]) if asked.returncode == 0 else 0
