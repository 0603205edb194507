"""Spare: a worker's process that is there before it is needed.

Half of the time that a small model takes to load is Python's, importing what it runs on. So one
process does that ahead, while nobody waits. Where it can be copied, each worker is a copy of it;
else it is told a model itself, and another one is prepared.
"""

import contextlib
import logging
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle

from server.copying import Copied, Copy, Imported
from server.pool.adopted import Adopted, adopt_orphans
from server.pool.process import Process, connected, start_process

log = logging.getLogger(__name__)

COPY_S = 5.0
"""Seconds that a copy may take; milliseconds are enough."""

Started = tuple[Process, Connection]


class Spare:
    """One process ahead of those that are needed. `command` starts a worker."""

    def __init__(self, command: tuple[str, ...]):
        self.stays = False
        """There will be more models to load: it is worth its memory after this one."""
        self._command = command
        self._ahead: Started | None = None
        self._has_imported = False
        self._gives_copies = True

    def prepare(self) -> None:
        """Have one ready for the next `take`. A failure shows when it is needed."""
        if self._ahead is None:
            with contextlib.suppress(OSError):
                self._ahead = start_process(self._command)
                self._has_imported = False

    def take(self) -> Started:
        """A copy of the process that is ready, or itself, or a new one. Raises OSError."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return start_process(self._command)
        process, pipe = ahead
        if process.poll() is not None:
            pipe.close()
            return start_process(self._command)
        if not (self.stays and self._gives_copies and self._can_be_copied(pipe)):
            return ahead
        self._ahead = ahead
        try:
            return _copy(process.pid, pipe)
        except (OSError, EOFError) as error:
            log.warning("the process that was prepared gives no copies: %s", error)
            # Not tried again: what a system refuses once it refuses always.
            self._gives_copies = False
            self.close()
            return start_process(self._command)

    def close(self) -> None:
        """End the one that is ready: it has nothing to lose. Safe to call again."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            process, pipe = ahead
            process.kill()
            process.wait()
            pipe.close()

    def _can_be_copied(self, pipe: Connection) -> bool:
        """Whether it has said so by now."""
        if not self._has_imported and pipe.poll():
            self._has_imported = isinstance(pipe.recv(), Imported)
        return self._has_imported


def _copy(pid: int, pipe: Connection) -> Started:
    """A copy of process `pid` at the other end of `pipe`. Raises OSError or EOFError."""
    adopt_orphans()
    with connected() as (ours, theirs):
        pipe.send(Copy())
        send_handle(pipe, theirs.fileno(), pid)
        if not pipe.poll(COPY_S):
            raise TimeoutError(f"none after {COPY_S:.0f} s")
        copied = pipe.recv()
        assert isinstance(copied, Copied)
        return Adopted(copied.pid), Connection(ours.detach())
