"""Errands: jobs that a command has done in a process of its own, since llama.cpp may abort it."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TypeVar

from server.errands import Advance, Measured, Quantized, Refused
from server.errors import CorralError

J = TypeVar("J")

Report = Advance | Quantized | Measured | Refused
Tell = Callable[[Advance], None]


def run(kind: type[J], do: Callable[[J, Tell], Report]) -> None:
    """Do the jobs that come down the pipe, whose number is the last argument, until it closes."""
    # The terminal's Ctrl-C is for the command, which then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = Connection(int(sys.argv[-1]))
    jobs: SimpleQueue[J] = SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, kind, jobs), daemon=True).start()
    while True:
        job = jobs.get()
        try:
            pipe.send(do(job, pipe.send))
        except CorralError as error:
            pipe.send(Refused(error.message))
        except OSError as error:
            pipe.send(Refused(str(error)))


def _receive(pipe: Connection, kind: type[J], jobs: SimpleQueue[J]) -> None:
    """Hand over jobs, and end the process with the command, even in the middle of one."""
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        assert isinstance(job, kind)
        jobs.put(job)
