"""Adopted: a process that others have started and that is our child all the same.

Linux gives a process whose parent has ended to the nearest of its ancestors that asked for such.
"""

import contextlib
import ctypes
import os
import signal

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans(wanted: bool = True) -> None:
    """From now on, descendants whose parents end are children of this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Adopted:
    """As much of `subprocess.Popen` as a worker's owner uses."""

    def __init__(self, pid: int):
        """Raises OSError if there is no such child."""
        self.pid = pid
        self._code: int | None = None
        self._handle = os.pidfd_open(pid)
        try:
            self.poll()
        except OSError:
            os.close(self._handle)
            raise

    def poll(self) -> int | None:
        """How it ended, as Popen tells it; None if it has not."""
        return self._look(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end; how it ended. In one thread at a time."""
        code = self._look(0)
        assert code is not None
        return code

    def kill(self) -> None:
        """End it by force. Nothing happens if it has ended."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def _look(self, options: int) -> int | None:
        if self._code is not None:
            return self._code
        ended = os.waitid(os.P_PIDFD, self._handle, os.WEXITED | options)
        if ended is not None:
            os.close(self._handle)
            by_itself = ended.si_code == os.CLD_EXITED
            self._code = ended.si_status if by_itself else -ended.si_status
        return self._code
