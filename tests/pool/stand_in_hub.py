"""A hub on this machine: what huggingface_hub calls of its HTTP API, and a CDN that can fail.

Two servers, since the hub sends large files from another host, which must not see the token.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_good"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Request:
    """One that came."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class StandIn:
    """What the hub has, and how it is to fail. Only the test writes it, before it asks."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    gated: set[str] = field(default_factory=set[str])
    """Listed for everybody, sent to those with the token."""
    private: set[str] = field(default_factory=set[str])
    in_git: set[str] = field(default_factory=set[str])
    """Paths of files outside of LFS, which the hub sends itself."""
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    """Announced in place of the true ones."""
    digests: dict[str, str] = field(default_factory=dict[str, str])
    names: dict[str, str] = field(default_factory=dict[str, str])
    """Paths listed in place of the true ones."""
    cuts: list[int] = field(default_factory=list[int])
    """After how many bytes each of the next answers breaks off."""
    statuses: list[int] = field(default_factory=list[int])
    """Sent by the CDN in place of the next answers."""
    ranges: bool = True
    """Whether the CDN honours Range."""
    no_commit: bool = False
    stall_after: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list[Request])
    url: str = ""
    cdn: str = ""

    def sent(self, file: str) -> list[Request]:
        """The downloads of `file` from the CDN."""
        return [r for r in self.requests if r.method == "GET" and r.path == f"/cdn/{file}"]


class Answering(BaseHTTPRequestHandler):
    """What both servers share."""

    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append(
            Request(
                self.command,
                unquote(urlsplit(self.path).path),
                self.headers["Range"],
                self.headers["Authorization"],
            )
        )
        self.answer(unquote(urlsplit(self.path).path))

    def answer(self, path: str) -> None:
        raise NotImplementedError

    def send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # who asked is free to leave
                self.write(body)

    def write(self, body: bytes) -> None:
        self.wfile.write(body)

    def refuse(self, status: int, code: str = "") -> None:
        self.send(status, {"X-Error-Code": code} if code else {})


class HubHandler(Answering):
    """The API, and /resolve."""

    def answer(self, path: str) -> None:
        given = self.headers["Authorization"]
        if given not in (None, f"Bearer {TOKEN}"):
            self.send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path.startswith("/api/models/"):
            self.info(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            repo, _, rest = path.removeprefix("/").partition("/resolve/")
            self.resolve(repo, rest.partition("/")[2])
        else:
            self.refuse(404)

    def info(self, path: str) -> None:
        hub = self.hub
        repo, _, revision = path.partition("/revision/")
        known = repo in hub.repos
        if not known or (repo in hub.private and not self.headers["Authorization"]):
            self.refuse(404 if self.headers["Authorization"] else 401, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        else:
            files = [self.sibling(file, data) for file, data in hub.repos[repo].items()]
            told: dict[str, object] = {"id": repo, "siblings": files}
            if not hub.no_commit:
                told["sha"] = COMMIT
            self.send(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def sibling(self, file: str, data: bytes) -> dict[str, object]:
        size = self.hub.sizes.get(file, len(data))
        git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        told: dict[str, object] = {"rfilename": self.hub.names.get(file, file), "size": size}
        if file in self.hub.in_git:
            return {**told, "blobId": git}
        digest = self.hub.digests.get(file, sha256(data))
        return {
            **told,
            "blobId": "0" * 40,
            "lfs": {"size": size, "sha256": digest, "pointerSize": 134},
        }

    def resolve(self, repo: str, file: str) -> None:
        hub = self.hub
        if repo in hub.gated and not self.headers["Authorization"]:
            self.refuse(401, "GatedRepo")
            return
        data = hub.repos[repo].get(file)
        if data is None:
            self.refuse(404, "EntryNotFound")
            return
        about = {"X-Repo-Commit": COMMIT}
        if file in hub.in_git:
            git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            self.send(200, {**about, "ETag": f'"{git}"'}, data)
        else:
            digest = hub.digests.get(file, sha256(data))
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            self.send(302, {**about, **linked, "Location": f"{hub.cdn}/cdn/{file}"})


class CdnHandler(Answering):
    """The bytes, from where they are asked for."""

    def answer(self, path: str) -> None:
        hub = self.hub
        file = path.removeprefix("/cdn/")
        data = next(files[file] for files in hub.repos.values() if file in files)
        if hub.statuses:
            self.refuse(hub.statuses.pop(0))
        elif (asked := self.headers["Range"]) and hub.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            place = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.send(206, {"Content-Range": place}, data[start:])
        else:
            self.send(200, {}, data)

    def write(self, body: bytes) -> None:
        hub = self.hub
        if body and hub.stall_after is not None:
            self.wfile.write(body[: hub.stall_after])
            hub.stalled.set()
            hub.go_on.wait()
            self.close_connection = True
        elif body and hub.cuts:
            self.wfile.write(body[: hub.cuts.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)


@contextmanager
def serve() -> Generator[StandIn]:
    """A stand-in that answers until the end."""
    hub = StandIn()
    with ExitStack() as stack:
        stack.callback(hub.go_on.set)
        hub.url = stack.enter_context(_listening(HubHandler, hub))
        hub.cdn = stack.enter_context(_listening(CdnHandler, hub))
        yield hub
        hub.go_on.set()


@contextmanager
def _listening(handler: type[Answering], hub: StandIn) -> Generator[str]:
    bound: Callable[..., Answering] = type(handler.__name__, (handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), bound) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
