"""`corral chat` and `corral run` as processes of their own, at pipes or at a terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60
SMALL = ("-t", "1", "-c", "256", "--temp", "0")


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "server", *map(str, args)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}


def corral(folder: Path, *args: object, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run to its end in `folder`, at pipes, with `text` as its input."""
    return subprocess.run(
        command(*args),
        cwd=folder,
        env=environment(),
        input=text,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )


class Terminal:
    """A process at a terminal, and what it has shown."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int):
        self.process = process
        self.shown = ""
        self._fd = fd

    def type(self, text: str) -> None:
        """Press keys: \\x03 is Ctrl-C, \\x04 Ctrl-D."""
        os.write(self._fd, text.encode())

    def until(self, text: str, after: int = 0) -> int:
        """Wait until this is shown beyond the place `after`; where it ends."""
        deadline = time.monotonic() + LIMIT_S
        while (at := self.shown.find(text, after)) < 0:
            assert self._more(deadline), f"no {text!r} in {self.shown!r}"
        return at + len(text)

    def interrupt(self, text: str, after: int) -> int:
        """Press Ctrl-C until this is shown; one may come as `input` is not yet waiting again."""
        for _ in range(LIMIT_S):
            self.type("\x03")
            until = time.monotonic() + 1
            while (at := self.shown.find(text, after)) < 0 and self._more(until):
                pass
            if at >= 0:
                break
        return self.until(text, after)

    def end(self) -> int:
        """Wait for the end; the exit status."""
        deadline = time.monotonic() + LIMIT_S
        while self._more(deadline):
            pass
        return self.process.wait(LIMIT_S)

    def _more(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            found = os.read(self._fd, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            return False
        self.shown += found.decode(errors="replace")
        return bool(found)


@contextmanager
def terminal(folder: Path, *args: object) -> Generator[Terminal]:
    """The command with a terminal of its own, killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        # Its own session, so that the terminal's Ctrl-C goes to it.
        [sys.executable, "-c", TAKE_TERMINAL, *command(*args)],
        cwd=folder,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)


TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
