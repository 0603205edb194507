"""Devices of other machines, by llama.cpp's RPC: as its client, and as its server.

llama.cpp aborts the process if a server cannot be reached or speaks another protocol, and waits
for ever for one that is busy: a server has one client at a time. So we shake hands first.
"""

import ctypes
import socket
import struct

from server.engine.llama.backend import Owned
from server.engine.llama.ggml import ggml
from server.errors import ModelLoadError

LIBRARY = "RPC"

PROTOCOL = (7, 0)
"""Of the llama.cpp that is built in; a server may not have a higher minor version."""

HELLO = 14
CAPABILITIES = 24
"""Bytes of both sides' transports; all 0: TCP alone."""

ANSWER_S = 10.0
"""Time to connect, and to answer. The client before us may just be leaving."""

ADD_SERVER = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)
START_SERVER = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p
)


def connect(endpoint: str) -> Owned:
    """Make the devices of the server at host:port known, and keep it for us until closed.

    Raises ModelLoadError if there is no such server. A process asks each server once: one that
    is known already is not looked at again.
    """
    device = _known(endpoint)
    if device is None:
        add_server = ADD_SERVER(_address("ggml_backend_rpc_add_server"))
        shake_hands(endpoint)
        registry = add_server(endpoint.encode())
        if not registry:
            raise ModelLoadError(f"engine.rpc_servers: {endpoint} has no devices")
        ggml.ggml_backend_register(registry)
        device = ggml.ggml_backend_reg_dev_get(registry, 0)
    return Owned(ggml.ggml_backend_dev_init(device, None), ggml.ggml_backend_free)


def _known(endpoint: str) -> int | None:
    """The first device of a server that is registered."""
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        registry = ggml.ggml_backend_dev_backend_reg(device)
        known = ggml.ggml_backend_reg_name(registry), ggml.ggml_backend_dev_description(device)
        if known == (LIBRARY.encode(), endpoint.encode()):
            return device
    return None


def _address(function: str) -> int:
    """Where a function of ggml's RPC is. Raises ModelLoadError if there is none."""
    registry = ggml.ggml_backend_reg_by_name(LIBRARY.encode())
    if not registry:
        raise ModelLoadError(
            "engine.rpc_servers: this llama.cpp was built without RPC, that is CMake's GGML_RPC"
        )
    return ggml.ggml_backend_reg_get_proc_address(registry, function.encode())


def shake_hands(endpoint: str, within_s: float = ANSWER_S) -> None:
    """Raise ModelLoadError, which names the server, unless it would take us as its client."""
    host, _, port = endpoint.partition(":")
    try:
        # llama.cpp itself looks for IPv4 only.
        family, kind, _, _, address = socket.getaddrinfo(
            host, int(port), socket.AF_INET, socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind) as connection:
            connection.settimeout(within_s)
            connection.connect(address)
            version = _hello(connection)
    except TimeoutError:
        raise ModelLoadError(
            f"engine.rpc_servers: {endpoint} does not answer within {within_s:g} s; an rpc-server "
            "has one client at a time"
        ) from None
    except OSError as error:
        raise ModelLoadError(f"engine.rpc_servers: {endpoint}: {error.strerror}") from None
    if version is None:
        raise ModelLoadError(f"engine.rpc_servers: {endpoint} is no rpc-server of llama.cpp")
    if version[0] != PROTOCOL[0] or version[1] > PROTOCOL[1]:
        theirs, ours = (".".join(map(str, numbers)) for numbers in (version, PROTOCOL))
        raise ModelLoadError(
            f"engine.rpc_servers: {endpoint} speaks RPC {theirs}, this llama.cpp {ours}"
        )


def _hello(connection: socket.socket) -> tuple[int, int] | None:
    """The server's version; None if its answer is not one."""
    connection.sendall(struct.pack("<BQ", HELLO, CAPABILITIES) + bytes(CAPABILITIES))
    expected = 4 + CAPABILITIES
    answer = b""
    while len(answer) < 8 + expected:
        part = connection.recv(8 + expected - len(answer))
        if not part:
            return None
        answer += part
    size, major, minor = struct.unpack_from("<QBB", answer)
    return (major, minor) if size == expected else None


def serve(endpoint: str, devices: list[int], n_threads: int, cache: str | None) -> None:
    """Lend devices, by their pointers, to one client after the other. Returns if it cannot listen.

    `cache`: a folder for weights, so that a client need not send them again. Raises ModelLoadError
    where there is no RPC.
    """
    start = START_SERVER(_address("ggml_backend_rpc_start_server"))
    pointers = (ctypes.c_void_p * len(devices))(*devices)
    folder = None if cache is None else cache.encode()
    start(endpoint.encode(), folder, n_threads, len(devices), pointers)
