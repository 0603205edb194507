"""RPC servers on this machine: what stands for GPUs where there are none."""

import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

import pytest
from llama_cpp import llama_supports_rpc

from server.engine.llama import rpc
from server.errors import ModelLoadError
from tests.conftest import ROOT
from tests.e2e.process import eventually

needs_rpc = pytest.mark.skipif(
    not llama_supports_rpc(), reason="this llama.cpp was built without RPC; `make test` builds it"
)


class Lender:
    """`corral rpc-server`, which lends the CPU of this machine as a device of its own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.endpoint = f"127.0.0.1:{self.port}"
        options = ("--port", str(self.port), "--threads", "1", "--device", "CPU")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "rpc-server", *options],
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
        )

    def answers(self) -> bool:
        """Whether it takes a client."""
        assert self.process.poll() is None
        with suppress(ModelLoadError):
            rpc.shake_hands(self.endpoint)
            return True
        return False

    def end(self) -> int:
        """Stop it; its exit status."""
        self.process.terminate()
        return self.process.wait(30)


@contextmanager
def lending(n: int) -> Generator[list[Lender]]:
    """So many servers that take clients."""
    lenders = [Lender() for _ in range(n)]
    try:
        for lender in lenders:
            eventually(lender.answers, "an RPC server")
        yield lenders
    finally:
        for lender in lenders:
            lender.end()
