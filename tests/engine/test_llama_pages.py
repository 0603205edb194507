"""Pages that are there before they are touched."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it is glibc that can be told where to allocate"
)

SIZE = 2**28

PROGRAM = f"""
import ctypes, time
import psutil
from server.engine.llama import pages

SIZE = {SIZE}
libc, me = pages._libc, psutil.Process()
before = me.memory_info().rss

def grown():
    return (me.memory_info().rss - before) / SIZE

def until(true):
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)

"""


def run(program: str) -> list[float]:
    """What the program prints, in parts of SIZE."""
    done = subprocess.run(
        (sys.executable, "-c", PROGRAM + program), check=True, capture_output=True, text=True
    )
    return [float(line) for line in done.stdout.split()]


def test_a_buffer_has_its_pages_before_it_is_touched() -> None:
    (there, after) = run(
        """
with pages.coming(SIZE):
    small = libc.malloc(2**20)  # as llama.cpp does before
    cells = libc.malloc(SIZE)
    until(lambda: grown() > 0.98)
    print(grown())
    ctypes.memset(cells, 0, SIZE)
print(grown())
"""
    )
    assert 0.98 < there < 1.02
    assert 0.98 < after < 1.05


def test_what_was_too_much_goes_back() -> None:
    (there, after, freed) = run(
        """
with pages.coming(SIZE):
    cells = libc.malloc(SIZE // 4)
    ctypes.memset(cells, 0, SIZE // 4)
    until(lambda: grown() > 0.98)
    print(grown())
print(grown())
libc.free(cells)
libc.malloc_trim(0)
print(grown())
"""
    )
    assert there > 0.98
    assert 0.24 < after < 0.3
    assert freed < 0.05


def test_large_blocks_are_mapped_again_afterwards() -> None:
    (held, freed) = run(
        """
with pages.coming(SIZE):
    pass
block = libc.malloc(SIZE)
guard = libc.malloc(100)
ctypes.memset(block, 0, SIZE)
print(grown())
libc.free(block)
print(grown())
"""
    )
    assert held > 0.98
    assert freed < 0.05


@pytest.mark.parametrize("size", [0, 1000, 2**25 - 1])
def test_small_ones_are_left_alone(size: int) -> None:
    (grown,) = run(
        f"""
with pages.coming({size}):
    cells = libc.malloc(2**24)
    print(grown())
"""
    )
    assert grown < 0.05


def test_it_ends_with_what_it_is_for() -> None:
    (n_threads, grown) = run(
        """
import threading
try:
    with pages.coming(64 * SIZE):
        raise MemoryError
except MemoryError:
    print(threading.active_count())
    print(grown())
"""
    )
    assert n_threads == 1
    assert grown < 0.05
