"""A scripted worker whose load waits: `python -m tests.api.gated_worker GATE FD`.

It tells 42% of its load, then reads the FIFO at GATE to its end: nothing there lets the load
succeed, anything else is why it fails.
"""

import sys
from multiprocessing.connection import Connection
from pathlib import Path

from server.errors import ModelLoadError
from server.ipc import Load, LoadFailed, Loading, Ready
from tests.pool.scripted_worker import INFO, serve


def main() -> None:
    """Serve the pipe whose number is the last argument."""
    pipe = Connection(int(sys.argv[2]))
    command = pipe.recv()
    assert isinstance(command, Load)
    pipe.send(Loading(0.42))
    fault = Path(sys.argv[1]).read_text()
    if fault:
        pipe.send(LoadFailed(ModelLoadError(fault)))
        return
    pipe.send(Ready(INFO))
    serve(pipe, "serve", 1, command.engine.n_threads)


if __name__ == "__main__":
    main()
