"""The real server as a user starts it: a process, its port, its log and its workers."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent.parent

START_S = 120.0
STOP_S = 30.0
ANSWER_S = 180.0
"""Safety nets for a machine that is busy with other things; nothing here takes that long."""

N_THREADS = 1
"""Two would wait for each other where something else needs a core too."""

SERVES = re.compile(r"serves .* at (http://\S+)/v1")
CACHE = "CORRAL_CACHE"
"""Names a folder. Other variables of that prefix are settings, and not for the server to see."""

WORKER_ARGUMENT = "server.engine"
CLEAN = (0, -signal.SIGTERM)
"""A process that ends as SIGTERM asks reports the signal."""


def eventually(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    """Wait for a state of another process, which nobody announces. The one place that polls."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        pause.wait(0.02)


class Log:
    """The lines that a process and its workers write, as they come."""

    def __init__(self, file: IO[str]):
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(file,), daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, within_s: float) -> str | None:
        """The text once it holds `pattern`; None if it ends or the time is up before."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._holds(pattern), within_s)
            return "".join(self._lines) if self._holds(pattern) else None

    def close(self, within_s: float) -> bool:
        """Wait for the last line; False while some process still holds the other end."""
        self._reader.join(within_s)
        return not self._reader.is_alive()

    def _holds(self, pattern: str) -> bool:
        return re.search(pattern, "".join(self._lines)) is not None

    def _read(self, file: IO[str]) -> None:
        with file:
            for line in file:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Corral:
    """One running `corral serve`."""

    def __init__(self, config: Path, env: Mapping[str, str] | None = None):
        self.process = subprocess.Popen(
            (sys.executable, "-m", "server", "serve", "--config", str(config), "--port", "0"),
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if k == CACHE or k[:7] != "CORRAL_"}
            | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.log = Log(self.process.stderr)
        self._seen = dict[int, psutil.Process]()

    def wait_until_it_listens(self) -> str:
        """The address, without /v1."""
        text = self.log.wait_for(SERVES.pattern, START_S)
        found = SERVES.search(text or "")
        assert found, f"it does not serve:\n{self.log.text}"
        return found[1]

    def started(self) -> list[psutil.Process]:
        """The processes of models, and the one that waits for the next."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if WORKER_ARGUMENT in _command(child)]

    def workers(self) -> list[psutil.Process]:
        """The processes of the loaded models."""
        found = [child for child in self.started() if _has_model(child)]
        self._seen.update((worker.pid, worker) for worker in found)
        return found

    def worker(self) -> psutil.Process:
        """The process of the only model."""
        (worker,) = self.workers()
        return worker

    def stop(self, how: signal.Signals) -> None:
        """Stop, and leave nothing behind: no error, no traceback, no process."""
        try:
            if self.process.poll() is None:
                self.workers()
                self.process.send_signal(how)
            status = self._wait()
            _, left = psutil.wait_procs(list(self._seen.values()), timeout=STOP_S)
            assert not left, f"workers outlived their server: {left}"
            assert self.log.close(STOP_S), "something still holds the server's stderr"
            assert "Traceback" not in self.log.text, self.log.text
            assert status in CLEAN, f"exit status {status}\n{self.log.text}"
        finally:
            self.kill()

    def _wait(self) -> int | None:
        """The exit status; None if it does not end."""
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Whatever is left, by force."""
        self.process.kill()
        for worker in self._seen.values():
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        self.process.wait()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def write_config(
    folder: Path,
    models: Mapping[str, Mapping[str, object]],
    server: Mapping[str, object] | None = None,
) -> Path:
    """A config.yaml; JSON is YAML too."""
    path = folder / "config.yaml"
    path.write_text(json.dumps({"server": server or {}, "models": models}))
    return path


@contextmanager
def serving(
    config: Path, how: signal.Signals = signal.SIGTERM, env: Mapping[str, str] | None = None
) -> Generator[Corral]:
    """A server for the length of a `with`, stopped by `how` and then looked over."""
    corral = Corral(config, env)
    try:
        yield corral
    except BaseException:
        corral.kill()
        raise
    corral.stop(how)


def until_ready(http: httpx.Client) -> None:
    """Wait until every preloaded model serves."""
    eventually(lambda: http.get("/readyz").is_success, "ready", START_S)


def _has_model(worker: psutil.Process) -> bool:
    """Unlike the one that waits for the next load."""
    try:
        return any(file.path.endswith(".gguf") for file in worker.memory_maps())
    except psutil.Error:
        return False
