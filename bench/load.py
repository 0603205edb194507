"""The load generator: streamed completions over raw sockets, one thread, parsed after the run.

It shares the processor with the server that it measures, so while a run is on it only stamps what
arrives with the time and looks for the end of each answer. Closed loop: a client sends its next
request when its last answer is complete.
"""

import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

RECV_BYTES = 1 << 16


class LoadError(Exception):
    """A server gave an answer that the benchmark cannot count; the message quotes it."""


@dataclass(frozen=True)
class Request:
    """One streamed completion: the JSON to send and the number of tokens that must come back."""

    payload: dict[str, object]
    n_tokens: int


@dataclass(frozen=True)
class Answer:
    """What one request got; times in seconds of time.perf_counter."""

    request: Request
    sent: float
    arrivals: tuple[float, ...]
    done: float

    @property
    def first_token_s(self) -> float:
        """Seconds from sending to the first event with text."""
        return self.arrivals[0] - self.sent


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int


class HttpBody:
    """An incremental reader of one HTTP/1.1 response: bytes in, body bytes out."""

    def __init__(self) -> None:
        self.status = 0
        self.done = False
        self._head: bytearray | None = bytearray()
        self._rest = bytearray()
        self._chunked = False
        self._n_left = -1

    def feed(self, data: bytes) -> bytes:
        """The body bytes in these bytes of the response; sets `done` at the end of the body."""
        if self._head is not None:
            self._head += data
            head, found, rest = bytes(self._head).partition(b"\r\n\r\n")
            if not found:
                return b""
            self._read_head(head)
            data = rest
        return self._read_chunks(data) if self._chunked else self._read_plain(data)

    def close(self) -> None:
        """The server closed the connection: the end of a body that has no length."""
        self.done = self.done or (self._head is None and not self._chunked and self._n_left < 0)

    def _read_head(self, head: bytes) -> None:
        self._head = None
        lines = head.lower().split(b"\r\n")
        self.status = int(lines[0].split()[1])
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name == b"transfer-encoding" and b"chunked" in value:
                self._chunked = True
            elif name == b"content-length":
                self._n_left = int(value)

    def _read_plain(self, data: bytes) -> bytes:
        if self._n_left >= 0:
            self._n_left -= len(data)
            self.done = self._n_left <= 0
        return data

    def _read_chunks(self, data: bytes) -> bytes:
        self._rest += data
        body = bytearray()
        while not self.done:
            size_line, found, rest = self._rest.partition(b"\r\n")
            if not found:
                break
            size = int(size_line.split(b";")[0], 16)
            if len(rest) < size + 2:
                break
            body += rest[:size]
            self._rest = rest[size + 2 :]
            self.done = size == 0
        return bytes(body)


@dataclass
class Exchange:
    """One request on the wire, and those that its client sends after it."""

    request: Request
    later: Iterator[Request]
    sock: socket.socket
    sent: float
    body: HttpBody = field(default_factory=HttpBody)
    segments: list[tuple[float, bytes]] = field(default_factory=list[tuple[float, bytes]])


def render(address: Address, payload: dict[str, object]) -> bytes:
    """The bytes of a POST to /v1/completions."""
    body = json.dumps(payload).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {address.host}:{address.port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def sse_payloads(segments: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The `data:` lines of a body with the time at which each was complete."""
    rest = b""
    for arrived, data in segments:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield arrived, line[5:].strip()


def read_answer(exchange: Exchange, done: float) -> Answer:
    """Parse a complete answer and check that it has the length asked for."""
    raw = b"".join(data for _, data in exchange.segments)
    if exchange.body.status != 200 or not exchange.body.done:
        raise LoadError(f"status {exchange.body.status}, answer cut or refused: {raw[-500:]!r}")
    arrivals: list[float] = []
    n_used: int | None = None
    finish: str | None = None
    for arrived, payload in sse_payloads(exchange.segments):
        if payload == b"[DONE]":
            break
        chunk = cast(dict[str, Any], json.loads(payload))
        for choice in chunk.get("choices") or ():
            finish = choice.get("finish_reason") or finish
            if choice.get("text"):
                arrivals.append(arrived)
        usage = cast(dict[str, int] | None, chunk.get("usage"))
        n_used = usage["completion_tokens"] if usage else n_used
    n_asked = exchange.request.n_tokens
    # No usage in the stream: "length" still says that all the tokens asked for were made.
    n_tokens = n_used if n_used is not None else n_asked if finish == "length" else len(arrivals)
    if n_tokens != n_asked or not arrivals:
        raise LoadError(f"{n_tokens} tokens instead of {n_asked} ({finish=}): {raw[-500:]!r}")
    return Answer(exchange.request, exchange.sent, tuple(arrivals), done)


class LoadGenerator:
    """Runs closed-loop clients against one server until all have had their answers."""

    def __init__(self, address: Address, timeout_s: float = 300.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._selector = selectors.DefaultSelector()
        self._finished: list[tuple[Exchange, float]] = []
        self._n_open = 0

    def run(
        self,
        clients: Sequence[Sequence[Request]],
        on_arrival: Callable[["LoadGenerator"], None] | None = None,
    ) -> list[Answer]:
        """The answers to every client's requests, in the order in which they ended.

        `on_arrival` is called after each batch of arrivals and may `add` clients.
        """
        deadline = time.perf_counter() + self._timeout_s
        try:
            for requests in clients:
                self.add(requests)
            while self._n_open:
                if time.perf_counter() > deadline:
                    raise LoadError(f"{self._n_open} answers missing after {self._timeout_s:g} s")
                for key, _ in self._selector.select(timeout=1.0):
                    self._receive(cast(Exchange, key.data))
                if on_arrival is not None:
                    on_arrival(self)
        finally:
            for key in list(self._selector.get_map().values()):
                cast(socket.socket, key.fileobj).close()
            self._selector.close()
        return [read_answer(exchange, done) for exchange, done in self._finished]

    def add(self, requests: Sequence[Request]) -> None:
        """Start one more client, which sends these one after another."""
        self._send_next(iter(requests))

    def all_started(self, n_segments: int) -> bool:
        """Whether every open exchange has had that many pieces of its answer."""
        exchanges = [cast(Exchange, key.data) for key in self._selector.get_map().values()]
        return all(len(exchange.segments) >= n_segments for exchange in exchanges)

    def _send_next(self, requests: Iterator[Request]) -> None:
        request = next(requests, None)
        if request is None:
            return
        message = render(self._address, request.payload)
        sock = socket.create_connection((self._address.host, self._address.port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        exchange = Exchange(request, requests, sock, time.perf_counter())
        sock.sendall(message)
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, exchange)
        self._n_open += 1

    def _receive(self, exchange: Exchange) -> None:
        try:
            data = exchange.sock.recv(RECV_BYTES)
        except BlockingIOError:
            return
        now = time.perf_counter()
        if data:
            body = exchange.body.feed(data)
            if body:
                exchange.segments.append((now, body))
        else:
            exchange.body.close()
        if exchange.body.done or not data:
            self._selector.unregister(exchange.sock)
            exchange.sock.close()
            self._n_open -= 1
            self._finished.append((exchange, now))
            self._send_next(exchange.later)
