"""A real HTTP server whose answers a test decides."""

import json
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """One request."""

    path: str
    """With its query."""
    body: Any
    """None where there is none."""
    headers: Mapping[str, str]
    """Names in lower case."""


class Said(NamedTuple):
    """What is answered."""

    status: int
    body: object
    headers: Mapping[str, str] = {}


@dataclass
class Listening:
    """Where it is, and all that it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list[Asked])

    def bodies(self, path: str) -> list[Any]:
        """Of all requests for a path, as they came."""
        return [asked.body for asked in self.asked if asked.path == path]


@contextmanager
def answering(answer: Callable[[Asked], Said]) -> Generator[Listening]:
    """A server for the length of a `with`."""
    listening = Listening("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            n_bytes = int(self.headers["content-length"])
            self._answer(json.loads(self.rfile.read(n_bytes)))

        def _answer(self, body: Any) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.path, body, headers)
            listening.asked.append(asked)
            said = answer(asked)
            text = json.dumps(said.body).encode()
            self.send_response(said.status)
            own = {"content-type": "application/json", "content-length": str(len(text))}
            for name, value in {**said.headers, **own}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        listening.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield listening
        finally:
            server.shutdown()
            thread.join()
