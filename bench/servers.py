"""The servers: how each is started, asked for exactly n tokens, watched and stopped."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
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
CORRAL = "corral"

# Which are fastest depends on the processor: `--tune` measures these, `--best` takes the winner.
BEST_FLAGS = "-fa off"
CANDIDATES = ("", "-fa off", "-kvu", "-fa off -kvu", "-cram 0", "-b 512", "-bs")


class ServerError(Exception):
    """A server cannot be started or has died; the message names its log."""


@dataclass(frozen=True)
class Setup:
    """What all servers of a run have in common."""

    cache: Cache
    model: Path
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


def _corral(setup: Setup, port: int) -> list[str]:
    engine = {"n_ctx": N_CTX, "n_slots": N_SLOTS, "n_threads": setup.n_threads}
    config = {
        "server": {"host": HOST, "port": port},
        "models": {"bench": {"path": str(setup.model), "preload": True, "engine": engine}},
    }
    path = _write_config(setup, "corral.yaml", config)
    return [sys.executable, "-m", "server", "serve", "--config", path]


def _llama_server(*flags: str) -> Callable[[Setup, int], list[str]]:
    def command(setup: Setup, port: int) -> list[str]:
        size = ["-c", str(N_SLOTS * N_CTX), "-np", str(N_SLOTS), "-t", str(setup.n_threads)]
        listen = ["--host", HOST, "--port", str(port)]
        binary = str(setup.cache.binary("llama-server"))
        return [binary, "-m", str(setup.model), *listen, *size, *flags]

    return command


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
    title = f"llama-server {flags}" if flags else "llama-server, defaults"
    return Spec(name, title, _llama_server(*flags.split()), "/health", _ignore_eos)


def all_specs(best_flags: str) -> tuple[Spec, ...]:
    """Corral and its peers."""
    return (
        Spec(CORRAL, "Corral", _corral, "/readyz", _ignore_eos),
        llama_server("best", best_flags),
        llama_server("default", ""),
        Spec("example", "llama-cpp-python's example", _example, "/healthz", _forbid_end_tokens),
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
    fields: dict[str, object] = field(default_factory=dict[str, object])

    def request(self, prompt: str, n_tokens: int, **sampling: float) -> Request:
        """A streamed completion of exactly n tokens; greedy unless `sampling` says otherwise."""
        payload: dict[str, object] = {
            "model": "bench",
            "prompt": prompt,
            "max_tokens": n_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return Request(payload | self.fields | sampling, n_tokens)

    def cpu_seconds(self) -> float:
        """Processor time that its processes have used so far."""
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

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
            time.sleep(0.05)

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
def running(spec: Spec, setup: Setup) -> Generator[Server]:
    """Start a server, wait until it is ready, and stop it on every exit."""
    port = _free_port()
    log = setup.folder / f"{spec.name.replace(' ', '_')}.log"
    with log.open("ab") as output:
        command = spec.command(setup, port)
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    server = Server(spec, Address(HOST, port), process, log, spec.to_length(setup))
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()
