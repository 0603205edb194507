"""Pages that are there before they are touched."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from server.engine.llama import pages
from server.engine.llama.pages import HUGE_PAGE, LEAST, MORE

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="it is glibc that can be told where to allocate"
)

SIZE = 2**28
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")

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


def huge_pages_can_be_made() -> bool:
    release = platform.release().split("-")[0].split(".")
    return tuple(map(int, release[:2])) >= (6, 1) and HUGE_PAGES.exists()


@pytest.mark.skipif(not huge_pages_can_be_made(), reason="Linux has done so since 6.1")
def test_pages_are_put_together_one_with_each_turn() -> None:
    (before, after_one, after, same, turns) = run(
        """
def huge():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(l.split()[1]) * 1024 / SIZE for l in lines if l.startswith("AnonHuge"))

with pages.coming(SIZE) as addresses:
    cells = libc.malloc(SIZE)
    ctypes.memset(cells, 7, SIZE)
at_first = huge()
print(at_first)
turns = pages.put_together(addresses)
for _ in turns:
    if huge() > at_first:
        print(huge() - at_first)
        break
n_turns = 1 + sum(1 for _ in turns)
print(huge() - at_first)
print(float(ctypes.string_at(cells, SIZE) == bytes([7]) * SIZE))
print(n_turns)
"""
    )
    assert before < 0.1
    assert after_one == pytest.approx(HUGE_PAGE / SIZE)
    assert after > 0.95
    assert same
    # Some of them find nothing: the block was larger than what is in it.
    assert SIZE / HUGE_PAGE - 1 <= turns <= (SIZE + MORE) / HUGE_PAGE


def test_nothing_is_put_together_where_nothing_is_known() -> None:
    assert not list(pages.put_together(range(0)))
    with pages.coming(LEAST - 1) as addresses:
        assert not addresses
