"""How many threads a model computes with."""

import os

import psutil


def cores() -> int:
    """Cores that we may use."""
    n = psutil.cpu_count(logical=False) or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else n
    return max(1, min(n, allowed))


def share(n_cores: int, n_busy: int) -> int:
    """Threads of each of `n_busy` models.

    Together never more than there are cores: llama.cpp's threads wait for each other in loops, and
    one that has no core holds up all the others.
    """
    return max(1, n_cores // max(1, n_busy))
