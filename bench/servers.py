"""The servers: how each is started, asked for exactly n tokens, watched and stopped."""

import contextlib
import http.client
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.build import Cache
from bench.load import Address, Request

REPOSITORY = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
N_CTX = 2048
N_SLOTS = 16
START_TIMEOUT_S = 120.0
RETRY_S = 0.01
GREEDY: Mapping[str, float] = {"temperature": 0}
CORRAL = "corral"
EXAMPLE = "example"

# Which are fastest depends on the processor: `--tune` measures these, `--best` takes the winner.
BEST_FLAGS = "-fa off"
# Its drafts from what was said before are off by default.
LOOKUP = (
    "--spec-type ngram-mod --spec-ngram-mod-n-match 4 --spec-ngram-mod-n-min 1"
    " --spec-ngram-mod-n-max 15"
)
CANDIDATES = ("", "-fa off", "-kvu", "-fa off -kvu", "-cram 0", "-b 512", "-bs", LOOKUP)


class ServerError(Exception):
    """A server cannot be started or has died; the message names its log."""


@dataclass(frozen=True)
class Setup:
    """What all servers of a run have in common."""

    cache: Cache
    model: Path
    second: Path
    """Another quant of the same model."""
    end_tokens: tuple[int, ...]
    n_threads: int
    folder: Path


@dataclass(frozen=True)
class Spec:
    """One server: the command that starts it, and what makes it generate to the full length."""

    name: str
    title: str
    command: Callable[[Setup, int], list[str]]
    ready_path: str
    to_length: Callable[[Setup], dict[str, object]]


def _write_config(setup: Setup, name: str, config: object) -> str:
    """A configuration file; JSON, which is YAML too."""
    path = setup.folder / name
    path.write_text(json.dumps(config, indent=1))
    return str(path)


def corral(name: str, title: str, config: Callable[[Setup], dict[str, object]]) -> Spec:
    """Corral with a configuration, to which the address is added."""

    def command(setup: Setup, port: int) -> list[str]:
        whole = {"server": {"host": HOST, "port": port}, "hf_cache": "off"} | config(setup)
        path = _write_config(setup, f"{name}.yaml", whole)
        return [sys.executable, "-m", "server", "serve", "--config", path]

    return Spec(name, title, command, "/readyz", _ignore_eos)


def _one_model(setup: Setup) -> dict[str, object]:
    engine = {"n_ctx": N_CTX, "n_slots": N_SLOTS, "n_threads": setup.n_threads}
    return {"models": {"bench": {"path": str(setup.model), "preload": True, "engine": engine}}}


def _example(setup: Setup, port: int) -> list[str]:
    model = {
        "path": str(setup.model),
        "alias": "bench",
        "n_ctx": N_SLOTS * N_CTX,
        "n_seq_max": N_SLOTS,
        "threads": setup.n_threads,
        "threads_batch": setup.n_threads,
    }
    config = {"server": {"host": HOST, "port": port}, "model": model}
    path = _write_config(setup, "example.json", config)
    return [str(setup.cache.example_python), str(setup.cache.example_script), "-C", path]


def _ignore_eos(_setup: Setup) -> dict[str, object]:
    return {"ignore_eos": True}


def _forbid_end_tokens(setup: Setup) -> dict[str, object]:
    # It knows no ignore_eos; JSON has no infinity, and no logit comes near this.
    return {"logit_bias": {str(token): -1e9 for token in setup.end_tokens}}


def llama_server(name: str, flags: str) -> Spec:
    """llama-server with more flags than the size of its context and its slots."""

    def more(setup: Setup) -> list[str]:
        return ["-m", str(setup.model), *flags.split()]

    title = f"llama-server {flags}" if flags else "llama-server, defaults"
    return llama_server_of(name, title, N_SLOTS, more)


def llama_server_of(
    name: str, title: str, n_slots: int, more: Callable[[Setup], list[str]]
) -> Spec:
    """llama-server with so many slots, and with flags that say what it serves."""

    def command(setup: Setup, port: int) -> list[str]:
        size = ["-c", str(n_slots * N_CTX), "-np", str(n_slots), "-t", str(setup.n_threads)]
        listen = ["--host", HOST, "--port", str(port)]
        return [str(setup.cache.binary("llama-server")), *listen, *size, *more(setup)]

    return Spec(name, title, command, "/health", _ignore_eos)


def all_specs(best_flags: str) -> tuple[Spec, ...]:
    """Corral and its peers."""
    return (
        corral(CORRAL, "Corral", _one_model),
        llama_server("best", best_flags),
        llama_server("default", ""),
        Spec(EXAMPLE, "llama-cpp-python's example", _example, "/healthz", _forbid_end_tokens),
    )


def candidates() -> tuple[Spec, ...]:
    """llama-server with each set of flags that might be its best."""
    return tuple(llama_server(flags or "(defaults)", flags) for flags in CANDIDATES)


@dataclass(frozen=True)
class Memory:
    """Bytes of a server's processes: `rss` summed, `alone` with every mapped file counted once."""

    rss: int
    alone: int


@dataclass
class Server:
    """A running server."""

    spec: Spec
    address: Address
    process: "subprocess.Popen[bytes]"
    log: Path
    started: float
    """By time.perf_counter."""
    fields: dict[str, object] = field(default_factory=dict[str, object])
    ready_s: float = math.nan
    """Seconds from the start until it was ready; known after `wait_ready`."""

    def request(
        self,
        prompt: str,
        n_tokens: int,
        sampling: Mapping[str, float] = GREEDY,
        model: str = "bench",
    ) -> Request:
        """A streamed completion of exactly n tokens."""
        payload: dict[str, object] = {
            "model": model,
            "prompt": prompt,
            "max_tokens": n_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return Request(payload | self.fields | dict(sampling), n_tokens)

    def cpu_seconds(self) -> float:
        """Processor time that its processes have used so far, those that have ended included."""
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
        return total

    def workers(self) -> frozenset[int]:
        """The ids of the processes that it has started and that live."""
        return frozenset(process.pid for process in self._processes()[1:])

    def memory(self) -> Memory:
        """What its processes hold now.

        Servers of one run map the same GGUF, and the kernel's PSS would share it out among them.
        `alone` is what the server would hold by itself: the anonymous pages of each process, and
        each mapped file once.
        """
        rss = anonymous = 0
        files: dict[str, int] = {}
        for process in self._processes():
            rss += process.memory_info().rss
            for mapping in process.memory_maps(grouped=True):
                anonymous += mapping.anonymous
                of_file = mapping.rss - mapping.anonymous
                files[mapping.path] = max(files.get(mapping.path, 0), of_file)
        return Memory(rss, anonymous + sum(files.values()))

    def stop(self) -> None:
        """End its processes, the patient way first."""
        processes = self._processes()
        self.process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=15)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def wait_ready(self) -> None:
        """Return when it answers its readiness path with 200."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self.process.poll() is not None:
                raise ServerError(f"{self.spec.title} ended while starting, see {self.log}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.spec.title} not ready in time, see {self.log}")
            time.sleep(RETRY_S)
        self.ready_s = time.perf_counter() - self.started

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=5)
        try:
            connection.request("GET", self.spec.ready_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _processes(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def is_present(spec: Spec) -> bool:
    """Whether the server can be started at all; only Corral itself may be missing."""
    return spec.name != CORRAL or (REPOSITORY / "server" / "__main__.py").exists()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def starting(spec: Spec, setup: Setup) -> Generator[Server]:
    """Start a server without waiting for it, and stop it on every exit."""
    port = _free_port()
    log = setup.folder / f"{spec.name.replace(' ', '_')}.log"
    # Corral's own cache of headers, so that the user's is not filled with what is served here.
    environment = {**os.environ, "CORRAL_CACHE": str(setup.folder)}
    command = spec.command(setup, port)
    with log.open("ab") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    server = Server(spec, Address(HOST, port), process, log, started, spec.to_length(setup))
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running(spec: Spec, setup: Setup) -> Generator[Server]:
    """Start a server, wait until it is ready, and stop it on every exit."""
    with starting(spec, setup) as server:
        server.wait_ready()
        yield server
