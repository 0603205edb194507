"""A long command run with its output in a log file and its progress on one line."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

NINJA = re.compile(r"\s*\[(\d+)/(\d+)\] ")
OFFLINE = re.compile(
    "name resolution|Name or service not known|nodename nor servname|Network is unreachable"
    "|NewConnectionError|ConnectTimeoutError|No route to host|Connection refused"
    "|ProxyError|Cannot connect to proxy|from versions: none"
)
TAIL_LINES = 30


class SetupError(Exception):
    """The set-up cannot go on; the message says why, and what to do about it."""


class Status:
    """One live line on a terminal; elsewhere a line for each tenth of the way.

    `_done` and `_total` are written by the thread that reads the output; another one draws them.
    """

    def __init__(self, label: str, out: TextIO):
        self._label = label
        self._out = out
        self._done = 0
        self._total = 0
        self._tenths = 0
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._drawer = threading.Thread(target=self._draw_until_end, daemon=True)

    def __enter__(self) -> "Status":
        if self._out.isatty():
            self._drawer.start()
        else:
            self._out.write(f"{self._label} ...\n")
            self._out.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._out.isatty():
            self._drawer.join()
            outcome = "failed" if error else "done"
            self._out.write(f"\r\x1b[K{self._label}: {outcome}, {self._elapsed()}\n")
            self._out.flush()

    def read(self, line: str) -> None:
        """Take the progress from one line of the command's output, if it tells any."""
        found = NINJA.match(line)
        if not found:
            return
        self._done, self._total = int(found[1]), int(found[2])
        tenths = 10 * self._done // self._total
        if tenths > self._tenths and not self._out.isatty():
            self._out.write(f"{self.line('')}\n")
            self._out.flush()
        self._tenths = tenths

    def line(self, spinner: str) -> str:
        """What to show now."""
        count = f" [{self._done}/{self._total}]" if self._total else ""
        return f"{spinner}{self._label}{count} {self._elapsed()}"

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        return f"{minutes}:{seconds:02d}"

    def _draw_until_end(self) -> None:
        turn = 0
        while not self._ended.wait(0.15):
            self._out.write("\r\x1b[K" + self.line("|/-\\"[turn % 4] + " "))
            self._out.flush()
            turn += 1


def run_logged(
    label: str,
    command: Sequence[str | Path],
    log: Path,
    environ: Mapping[str, str],
    cwd: Path,
    out: TextIO = sys.stderr,
) -> None:
    """Run `command`, its output in `log`. Raises SetupError with the end of it if it fails."""
    with (
        log.open("w", encoding="utf-8") as file,
        Status(label, out) as status,
        subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            status.read(line)
        if process.wait() != 0:
            file.flush()
            text = log.read_text(encoding="utf-8")
            out.write("".join(f"    {line}\n" for line in text.splitlines()[-TAIL_LINES:]))
            raise SetupError(f"{label} failed: {cause(text, process.returncode)}; see {log}")


def cause(text: str, code: int) -> str:
    """Why a command failed, as far as its output `text` tells."""
    if OFFLINE.search(text):
        return "the package index cannot be reached (is there a network, or a proxy to set?)"
    return f"exit status {code}"
