"""`corral rpc-server`: this process becomes one of the engine's, which lends its devices."""

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

MODULE = "server.engine.rpc_server"


def run(
    host: str, port: int, n_threads: int, cache: Path | None, devices: tuple[str, ...]
) -> NoReturn:
    """Lend `devices` at host:port; `n_threads` 0 is one per core. Raises OSError."""
    folder = "" if cache is None else str(cache)
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    endpoint = f"{_free_address(host, port)}:{port}"
    arguments = [sys.executable, "-m", MODULE, endpoint, str(n_threads), folder, *devices]
    sys.stdout.flush()
    os.execv(sys.executable, arguments)


def _free_address(host: str, port: int) -> str:
    """The IPv4 address of `host`, as llama.cpp wants it, if one can listen there."""
    address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
    return str(address[0])
