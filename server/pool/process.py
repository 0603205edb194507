"""A worker's process: how it is started, and how it ended."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

COMMAND = (sys.executable, "-m", "server.engine")
"""What starts a worker."""

ENVIRON = {
    # llama.cpp's abort handler would start gdb where that is installed.
    "GGML_NO_BACKTRACE": "1",
    # Nothing here multiplies matrices by numpy, whose threads take from those who start beside us.
    "OPENBLAS_NUM_THREADS": "1",
}
"""Of a worker, where nothing else is said."""

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Large buffers in pages of 2 MiB: all KV cells are cleared, at the price of a fault per page."""

REPORTED_ORDER = Path("/sys/module/page_reporting/parameters/page_reporting_order")
"""Of what size free memory has to be to go back to the hypervisor: 2**n pages; -1: it does not."""

MOST_ORDER = 11
"""Linux has no free blocks of this order."""

CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})
"""Signals that a process brings upon itself; others were sent by somebody."""


class Process(Protocol):
    """What a worker's owner does with its process."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...


@contextmanager
def connected() -> Generator[tuple[socket.socket, socket.socket]]:
    """Our end of a pipe and a process's, which are closed if nobody has detached them."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def start_process(command: tuple[str, ...]) -> tuple[Process, Connection]:
    """Run `command` with the number of its end of a pipe appended, and our end. Raises OSError."""
    with connected() as (ours, theirs):
        process = subprocess.Popen(
            (*command, str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            # The terminal's Ctrl-C is for the server, which then tells us.
            process_group=0,
            env=(HUGE_PAGES if keeps_free_memory() else {}) | ENVIRON | os.environ,
        )
        return process, Connection(ours.detach())


def keeps_free_memory() -> bool:
    """Whether free memory stays this machine's. Else its huge pages are those that have gone."""
    try:
        return int(REPORTED_ORDER.read_text()) not in range(MOST_ORDER)
    except (OSError, ValueError):
        return True


def crashed_itself(code: int) -> bool:
    """Whether a process that ended with `code` had itself to blame."""
    return -code in CRASHES


def ended_how(code: int) -> str:
    """A process's end in words."""
    return f"signal {_signal_name(-code)}" if code < 0 else f"exit status {code}"


def _signal_name(number: int) -> str:
    """`SIGKILL`; most real-time signals have no name."""
    return next((known.name for known in signal.Signals if known == number), str(number))
