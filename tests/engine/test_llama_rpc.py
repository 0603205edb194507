"""Shaking hands with an RPC server, and with what is none."""

import socket
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from server.engine.llama import Devices, rpc
from server.engine.llama.ggml import ggml
from server.engine_config import EngineConfig
from server.errors import ModelLoadError
from tests.engine.lenders import lending, needs_rpc

HELLO = struct.pack("<BQ", 14, 24) + bytes(24)


def answer(major: int, minor: int, size: int = 28) -> bytes:
    return struct.pack("<QBBBB", size, major, minor, 9, 0) + bytes(24)


@contextmanager
def answering(data: bytes) -> Generator[tuple[str, list[bytes]]]:
    """A server that says this to its one client and hangs up; what it was told."""
    heard: list[bytes] = []

    def serve() -> None:
        with listener.accept()[0] as client:
            heard.append(client.recv(len(HELLO), socket.MSG_WAITALL))
            client.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"localhost:{listener.getsockname()[1]}", heard
        finally:
            thread.join()


@pytest.mark.parametrize("minor", range(rpc.PROTOCOL[1] + 1))
def test_a_server_of_our_protocol(minor: int) -> None:
    with answering(answer(rpc.PROTOCOL[0], minor)) as (endpoint, heard):
        rpc.shake_hands(endpoint)
    assert heard == [HELLO]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (answer(6, 0), "speaks RPC 6.0, this llama.cpp 7.0"),
        (answer(7, 1), "speaks RPC 7.1, this llama.cpp 7.0"),
        (answer(7, 0, size=4), "is no rpc-server of llama.cpp"),
        (answer(7, 0)[:-1], "is no rpc-server of llama.cpp"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(20), "is no rpc-server of llama.cpp"),
        (b"", "is no rpc-server of llama.cpp"),
    ],
)
def test_a_server_of_another_kind(data: bytes, reason: str) -> None:
    with answering(data) as (endpoint, _), pytest.raises(ModelLoadError) as caught:
        rpc.shake_hands(endpoint)
    assert caught.value.message == f"engine.rpc_servers: {endpoint} {reason}"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ModelLoadError, match=rf": 127\.0\.0\.1:{port}: Connection refused$"):
        rpc.shake_hands(f"127.0.0.1:{port}")
    with pytest.raises(ModelLoadError, match=r"no\.such\.host\.invalid:1: .+"):
        rpc.shake_hands("no.such.host.invalid:1")


def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ModelLoadError, match=r"does not answer within 0\.05 s; .* one client"):
            rpc.shake_hands(endpoint, 0.05)


@needs_rpc
def test_the_real_server() -> None:
    """It speaks the protocol that we believe to be llama.cpp's, to one client at a time."""
    with lending(1) as (lender,):
        rpc.shake_hands(lender.endpoint)
        with socket.create_connection(("127.0.0.1", lender.port)) as first:
            first.sendall(HELLO)
            theirs = first.recv(36, socket.MSG_WAITALL)
            assert struct.unpack_from("<QBB", theirs) == (28, *rpc.PROTOCOL)
            with pytest.raises(ModelLoadError, match="does not answer within"):
                rpc.shake_hands(lender.endpoint, 0.2)
        rpc.shake_hands(lender.endpoint)
        assert lender.process.poll() is None


def test_a_build_without_rpc(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: bytes) -> None:
        return None

    monkeypatch.setattr(ggml, "ggml_backend_reg_by_name", unknown)
    for attempt in (
        lambda: Devices(EngineConfig(rpc_servers=("127.0.0.1:1",))),
        lambda: rpc.serve("127.0.0.1:1", [], 1, None),
    ):
        with pytest.raises(ModelLoadError, match=r"built without RPC.* GGML_RPC"):
            attempt()


def test_what_a_server_is_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def start(endpoint: bytes, cache: bytes | None, n_threads: int, n: int, devices: Any) -> None:
        seen.append((endpoint, cache, n_threads, n, list(devices)))

    def function(_: int) -> Any:
        return start

    def address(_: str) -> int:
        return 1

    monkeypatch.setattr(rpc, "START_SERVER", function)
    monkeypatch.setattr(rpc, "_address", address)
    rpc.serve("h:1", [7, 8], 3, "dossier é")
    rpc.serve("h:1", [7], 1, None)
    assert seen == [(b"h:1", "dossier é".encode(), 3, 2, [7, 8]), (b"h:1", None, 1, 1, [7])]


@needs_rpc
def test_a_server_without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_registry(_: bytes) -> None:
        return None

    def function(_: int) -> Any:
        return no_registry

    def shake_hands(_: str) -> None:
        return None

    monkeypatch.setattr(rpc, "ADD_SERVER", function)
    monkeypatch.setattr(rpc, "shake_hands", shake_hands)
    with pytest.raises(ModelLoadError, match="h:1 has no devices"):
        rpc.connect("h:1")
