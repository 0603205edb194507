"""A worker's process: how it is started, and how it ended."""

import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection

COMMAND = (sys.executable, "-m", "server.engine")
"""What starts a worker."""

ENVIRON = {
    # Large buffers in pages of 2 MiB: all KV cells are cleared, at the price of a fault per page.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    # llama.cpp's abort handler would start gdb where that is installed.
    "GGML_NO_BACKTRACE": "1",
    # Nothing here multiplies matrices by numpy, whose threads take from those who start beside us.
    "OPENBLAS_NUM_THREADS": "1",
}
"""Of a worker, where nothing else is said."""

CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})
"""Signals that a process brings upon itself; others were sent by somebody."""


def start_process(command: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], Connection]:
    """Run `command` with the number of its end of a pipe appended, and our end. Raises OSError."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            (*command, str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            # The terminal's Ctrl-C is for the server, which then tells us.
            process_group=0,
            env=ENVIRON | os.environ,
        )
        return process, Connection(ours.detach())


def crashed_itself(code: int) -> bool:
    """Whether a process that ended with `code` had itself to blame."""
    return -code in CRASHES


def ended_how(code: int) -> str:
    """A process's end in words."""
    return f"signal {_signal_name(-code)}" if code < 0 else f"exit status {code}"


def _signal_name(number: int) -> str:
    """`SIGKILL`; most real-time signals have no name."""
    return next((known.name for known in signal.Signals if known == number), str(number))
