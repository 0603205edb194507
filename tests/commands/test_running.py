"""What a server says of its models, and what says nothing."""

import socket
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from server.commands.running import called, states
from server.config import Config, ServerConfig

GOOD = b"""{"object": "list", "data": [
    {"id": "a", "state": "ready", "pinned": true}, {"id": "b/c", "state": "unloaded"}]}"""


@contextmanager
def answering(body: bytes, status: int = 200) -> Generator[Config]:
    """A server that has one answer, at its path; the configuration that names it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/admin/models" else 500)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield at(server.server_port)
        finally:
            server.shutdown()
            thread.join()


def at(port: int) -> Config:
    return Config(server=ServerConfig(port=port))


def test_a_server_says_its_states() -> None:
    with answering(GOOD) as config:
        assert states(config) == {"a": "ready", "b/c": "unloaded"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (GOOD, 500),
        (b"Not Found", 404),
        (b'{"data": [{"id": "a"}]}', 200),
        (b'{"error": {}}', 200),
        (b"", 200),
    ],
)
def test_other_servers_are_none(body: bytes, status: int) -> None:
    with answering(body, status) as config:
        assert states(config) is None


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert states(at(port)) is None
    assert states(at(0)) is None


def test_a_silent_server_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert states(at(silent.getsockname()[1])) is None


@pytest.mark.parametrize(
    ("host", "name"),
    [("0.0.0.0", "localhost"), ("::", "localhost"), ("10.0.0.1", "10.0.0.1")],
)
def test_what_a_host_is_called(host: str, name: str) -> None:
    assert called(host) == name
