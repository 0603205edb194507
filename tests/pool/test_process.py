"""How a worker's process is started."""

import sys
from pathlib import Path

import pytest

from server.pool import process
from server.pool.process import keeps_free_memory, start_process

TELL = """
import os, sys
from multiprocessing.connection import Connection
Connection(int(sys.argv[1])).send(os.environ.get("GLIBC_TUNABLES"))
"""


def tunables() -> str | None:
    """`GLIBC_TUNABLES` of a process."""
    started, pipe = start_process((sys.executable, "-c", TELL))
    with pipe:
        told = pipe.recv()
    started.wait()
    return told


@pytest.mark.parametrize(
    ("order", "kept"), [("-1", True), ("11", True), ("9", False), (None, True)]
)
def test_large_buffers_are_in_huge_pages_where_free_memory_is_kept(
    order: str | None, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "order"
    if order is not None:
        path.write_text(f"{order}\n")
    monkeypatch.setattr(process, "REPORTED_ORDER", path)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert keeps_free_memory() is kept
    assert tunables() == ("glibc.malloc.hugetlb=1" if kept else None)


def test_what_was_set_already_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert tunables() == "glibc.malloc.hugetlb=0"
