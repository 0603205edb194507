"""Spare: a worker's process that is there before it is needed.

Half of the time that a small model takes to load is Python's, importing what it runs on. So one
process does that ahead, while nobody waits, and is told its model when there is one to load.
"""

import contextlib
import subprocess
from multiprocessing.connection import Connection

from server.pool.process import start_process

Started = tuple[subprocess.Popen[bytes], Connection]


class Spare:
    """One process ahead of those that are needed. `command` starts a worker."""

    def __init__(self, command: tuple[str, ...]):
        self._command = command
        self._ahead: Started | None = None

    def prepare(self) -> None:
        """Have one ready for the next `take`. A failure shows when it is needed."""
        if self._ahead is None:
            with contextlib.suppress(OSError):
                self._ahead = start_process(self._command)

    def take(self) -> Started:
        """The process that is ready, or a new one. Raises OSError."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return start_process(self._command)
        process, pipe = ahead
        if process.poll() is None:
            return ahead
        pipe.close()
        return start_process(self._command)

    def close(self) -> None:
        """End the one that is ready: it has nothing to lose. Safe to call again."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            process, pipe = ahead
            process.kill()
            process.wait()
            pipe.close()
