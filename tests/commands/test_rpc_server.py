"""`corral rpc-server` as a process: it lends, it refuses, it ends when told."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from server.commands import rpc_server
from tests.conftest import ROOT
from tests.engine.lenders import lending, needs_rpc


def refusal(*options: str) -> tuple[int, str]:
    """Its exit status and its last line."""
    run = subprocess.run(
        [sys.executable, "-m", "server", "rpc-server", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    return run.returncode, run.stderr.splitlines()[-1]


def test_what_it_becomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []

    def execv(program: str, arguments: list[str]) -> None:
        seen.append((program, arguments))

    monkeypatch.setattr("os.execv", execv)
    cache = tmp_path / "new" / "cache"
    rpc_server.run("localhost", 0, 3, cache, ("CUDA0", "CPU"))
    rpc_server.run("127.0.0.1", 0, 0, None, ())
    start = [sys.executable, "-m", "server.engine.rpc_server", "127.0.0.1:0"]
    assert seen == [
        (sys.executable, [*start, "3", str(cache), "CUDA0", "CPU"]),
        (sys.executable, [*start, "0", ""]),
    ]
    assert cache.is_dir()


def test_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, line = refusal("--port", str(port))
    assert status == 1
    assert line == f"corral: cannot listen on 127.0.0.1:{port}: Address already in use"


def test_a_host_that_does_not_exist() -> None:
    status, line = refusal("--host", "no.such.host.invalid")
    assert status == 1
    assert line.startswith("corral: cannot listen on no.such.host.invalid:50052: ")


def test_a_device_that_does_not_exist() -> None:
    status, line = refusal("--port", "50999", "--device", "CUDA7")
    assert status == 1
    assert line.startswith("corral: there is no device CUDA7; there are CPU (")


@needs_rpc
def test_it_ends_when_told() -> None:
    with lending(1) as (lender,):
        assert lender.answers()
        assert lender.end() == -signal.SIGTERM
