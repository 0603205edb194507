"""What is free, on this machine and in a container."""

from pathlib import Path

import psutil
import pytest

from server.pool.machine import free_ram, free_vram, room


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
    assert found.vram == free_vram() >= 0
