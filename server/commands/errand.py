"""Errand: a process that does one job after the other for a command, and may die of it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Self, TypeVar

from server.errands import Advance, Measure, Quantize, Refused
from server.errors import CommandError

R = TypeVar("R")

STOP_S = 5.0
"""Seconds that a process has to end by itself."""


class Errand:
    """A running process, ended on leaving the context."""

    def __init__(self, module: str):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-m", module, str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # llama.cpp's abort handler would start gdb where that is installed.
                env=os.environ | {"GGML_NO_BACKTRACE": "1"},
            )
            self._pipe = Connection(ours.detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Its pipe closed, it ends by itself, in whatever it is.
        self._pipe.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(
        self, job: Quantize | Measure, kind: type[R], on_advance: Callable[[Advance], None]
    ) -> R:
        """Have a job done. Raises CommandError if it is refused, or if the process dies of it."""
        try:
            self._pipe.send(job)
            while True:
                report = self._pipe.recv()
                if isinstance(report, Refused):
                    raise CommandError(report.reason)
                if isinstance(report, kind):
                    return report
                assert isinstance(report, Advance)
                on_advance(report)
        except (EOFError, OSError) as error:
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise CommandError(f"llama.cpp died: {how}") from error
