"""Copies of a process that has imported all that a worker runs on, made before it has a model.

A copy shares the memory of what was imported, and is there after some milliseconds. The process
itself never opens a model then: what llama.cpp has begun does not survive being copied.
"""

import gc
import os
import sys
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

from server.copying import Copied, Copy, Imported
from server.ipc import Load

THREADS = Path("/proc/self/task")


def wait_for_load(pipe: Connection) -> tuple[Connection, Load]:
    """The first command, in this process or in a copy of it, and the pipe that it came by.

    Raises EOFError or OSError when the server has gone.
    """
    if _can_be_copied():
        gc.freeze()  # the collector would write to what copies share
        pipe.send(Imported())
    while True:
        command = pipe.recv()
        if not isinstance(command, Copy):
            assert isinstance(command, Load)
            return pipe, command
        its_pipe = recv_handle(pipe)
        pid = _copy()
        if pid is None:
            pipe.close()
            pipe = Connection(its_pipe)
        else:
            os.close(its_pipe)
            pipe.send(Copied(pid))


def _can_be_copied() -> bool:
    """Linux copies one thread, and gives a process whose parent has ended to a parent's parent."""
    return sys.platform == "linux" and len(list(THREADS.iterdir())) == 1


def _copy() -> int | None:
    """The number of the copy, which is the server's child; None in the copy itself."""
    read, write = os.pipe()
    between = os.fork()
    if not between:
        pid = os.fork()
        if not pid:
            os.close(read)
            os.close(write)
            return None
        os.write(write, pid.to_bytes(8))
        os._exit(0)
    os.waitpid(between, 0)
    os.close(write)
    number = os.read(read, 8)
    os.close(read)
    return int.from_bytes(number)
