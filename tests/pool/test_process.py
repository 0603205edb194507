"""How a worker's process is started."""

import sys

import pytest

from server.pool.process import start_process

TELL = """
import os, sys
from multiprocessing.connection import Connection
Connection(int(sys.argv[1])).send(os.environ["GLIBC_TUNABLES"])
"""


def tunables() -> str:
    """`GLIBC_TUNABLES` of a process."""
    process, pipe = start_process((sys.executable, "-c", TELL))
    with pipe, process:
        return pipe.recv()


def test_large_buffers_are_in_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert tunables() == "glibc.malloc.hugetlb=1"


def test_what_was_set_already_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert tunables() == "glibc.malloc.hugetlb=0"
