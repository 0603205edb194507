"""The real worker, miscompiled: its first decode crashes while weights are repacked."""

import os
import signal
from contextlib import ExitStack
from multiprocessing.connection import Connection

from server.engine import llama, main
from server.ipc import Load

load_engine = main.load_engine


def crash(context: llama.Context) -> bool:
    """In place of the first decode."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return context.trim(0, 0)


def load_or_crash(pipe: Connection, load: Load, stack: ExitStack) -> main.Loaded:
    """What the real worker does, but for the warm-up."""
    if load.engine.use_extra_bufts:
        main.warm_up = crash
    return load_engine(pipe, load, stack)


if __name__ == "__main__":
    main.load_engine = load_or_crash
    main.main()
