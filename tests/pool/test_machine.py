"""What is free, on this machine and in a container."""

import mmap
import os
import sys
from pathlib import Path

import psutil
import pytest

from server.pool.machine import free, free_gpus, free_ram, room, taken, watch


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [
        ("max", "100", 1000),
        ("5000", "100", 1000),
        ("600", "100", 500),
        ("600", "700", 0),
        (None, None, 1000),
    ],
)
def test_a_containers_limit_counts(
    tmp_path: Path, limit: str | None, used: str | None, free: int
) -> None:
    if limit is not None and used is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    assert free_ram(1000, tmp_path) == free


def test_this_machine_has_room() -> None:
    found = room()
    assert 0 < found.ram <= psutil.virtual_memory().total
    assert found.vram == sum(free_gpus()) >= 0
    assert free().gpus == free_gpus()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells which pages are read")
def test_pages_of_a_file_count_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(8 * 2**20))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        sum(data[::4096])
        all_of_it = taken(os.getpid(), path)
        watch(os.getpid())
        sum(data[: 2**20 : 4096])
        a_part = taken(os.getpid(), path)
    assert all_of_it.mapped == a_part.mapped == all_of_it.read == 8 * 2**20
    assert 2**20 <= a_part.read < 4 * 2**20
    assert a_part.needed == a_part.own + a_part.read
    assert taken(os.getpid(), path)[1:] == (0, 0)


def test_elsewhere_all_that_is_resident_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: Path) -> bool:
        return False

    monkeypatch.setattr(Path, "exists", nowhere)
    own, *of_the_file = taken(os.getpid(), Path("x"))
    assert own == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert of_the_file == [0, 0]
