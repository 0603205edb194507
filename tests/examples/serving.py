"""Corral's app with a scripted worker, and a web site, on ports of this machine."""

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import uvicorn
from fastapi import FastAPI

from tests.e2e.process import eventually

Page = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(app: FastAPI) -> Generator[str]:
    """The address of a server that has the app, without /v1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            eventually(lambda: server.started, "it serves")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def page(
    body: bytes | str, kind: str = "text/html; charset=utf-8", status: int = 200, **headers: str
) -> Page:
    """A whole answer. Underscores of names stand for hyphens."""
    content = body.encode() if isinstance(body, str) else body

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        to.send_header("Content-Type", kind)
        to.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            to.send_header(name.replace("_", "-"), value)
        to.end_headers()
        to.wfile.write(content)

    return answer


def redirect(location: str) -> Page:
    return page("", status=302, Location=location)


class Site:
    """A web site whose pages a test may change. `seen` has the paths that were asked for."""

    def __init__(self, port: int):
        self.host = f"127.0.0.1:{port}"
        self.port = port
        self.pages: dict[str, Page] = {}
        self.seen: list[str] = []

    def link(self, path: str) -> str:
        return f"http://{self.host}{path}"


@contextmanager
def web_site() -> Generator[Site]:
    """A site without pages."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.seen.append(self.path)
            site.pages.get(self.path, page("nothing", status=404))(self)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
