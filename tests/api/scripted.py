"""A scripted worker and pool behind the real app, and clients that drive it by hand."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
from fastapi import FastAPI
from starlette.types import Message

from server.app import create_app
from server.config import Config, ModelConfig, ServerConfig
from server.engine_config import EngineConfig
from server.errors import CorralError, ModelNotFound, QueueFull
from server.ipc import (
    Accepted,
    Delta,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    ModelInfo,
    Question,
    Reply,
    Text,
)
from server.pool.generation import Generation
from server.pool.pool import Lease, ModelPool
from server.pool.worker import Worker
from server.sampling import SamplingParams

R = TypeVar("R", bound=Reply)

MODEL = "org/tiny"
SPECIAL = ("<|im_start|>", "<|im_end|>", "<s>")

INFO = ModelInfo(
    n_ctx=64,
    n_ctx_train=64,
    n_slots=4,
    n_vocab=100,
    n_params=1000,
    size_bytes=2000,
    description="tiny",
    template=None,
    bos="<s>",
    eos="<|im_end|>",
    special=SPECIAL,
    kv_layout="split",
    n_gpu_layers=0,
    embeds=True,
    n_embd=4,
    ends=SPECIAL[:2],
)

Script = Callable[[int, GenerateRequest], Sequence[Event]]
"""The events of the k-th submitted request. No last event: the answer hangs."""


def speak(*words: str, reason: str = "stop", n_prompt: int = 7, n_cached: int = 3) -> Script:
    """Each word is a token; the last one comes with Finished."""

    def script(_: int, request: GenerateRequest) -> Sequence[Event]:
        del request
        deltas = [Delta(0, word, 1) for word in words[:-1]]
        end = Finished(0, words[-1], 1, cast("Any", reason), n_prompt, n_cached, len(words))
        return [Accepted(0, n_prompt), *deltas, end]

    return script


def fail(error: CorralError, *before: Event) -> Script:
    """Some events, then a failure."""
    return lambda _, __: [*before, Failed(0, error)]


HELLO = speak("Hello", " wor", "ld")


def unanswered(question: Question) -> Reply:
    """No test has said what to answer."""
    raise AssertionError(question)


class ScriptedWorker(Worker):
    """Answers each request from a script, at once or when a test says so."""

    def __init__(self, model: str, config: ModelConfig, script: Script):
        self.model = model
        self.config = config
        self.script = script
        self.requests: list[GenerateRequest] = []
        self.generations: list[Generation] = []
        self.cancelled: list[int] = []
        self.asked: list[Question] = []
        self.answer: Callable[[Question], Reply] = unanswered
        self.capacity = 1000
        self.gguf_template: str | None = None
        self.submitted = asyncio.Event()
        self.closed = asyncio.Event()
        """Set when a generation was cancelled."""

    @property
    def info(self) -> ModelInfo:
        return replace(INFO, template=self.gguf_template)

    def submit(self, request: GenerateRequest) -> Generation:
        number = len(self.requests)
        if number >= self.capacity:
            raise QueueFull("too many", retry_after=1.5)
        generation = Generation(lambda: self._cancel_scripted(number))
        self.requests.append(request)
        self.generations.append(generation)
        for event in self.script(number, request):
            generation.push(event)
        self.submitted.set()
        return generation

    async def ask(self, question: Question, reply: type[R]) -> R:
        self.asked.append(question)
        answer = self.answer(question)
        assert isinstance(answer, reply)
        return answer

    def _cancel_scripted(self, number: int) -> None:
        self.cancelled.append(number)
        self.closed.set()


class ScriptedPool(ModelPool):
    """A pool with one scripted worker for all its models."""

    def __init__(self, config: Config, script: Script):
        super().__init__(config)
        self.scripted = ScriptedWorker(MODEL, config.models[MODEL], script)
        self.error: CorralError | None = None
        self.is_ready = True
        self.loading: asyncio.Event | None = None
        self.load_progress: float | None = None
        self.log: list[str] = []
        self.n_leases = 0
        self.most_leases = 0
        self.keep_alive_s: float | None = None
        self.wait_s: float | None = None

    async def lease(
        self, model: str, wait_s: float | None = None, keep_alive_s: float | None = None
    ) -> Lease:
        self.wait_s = wait_s
        if model not in self.models:
            raise ModelNotFound(f"no model {model}", param="model")
        if self.error is not None:
            raise self.error
        if self.loading is not None:
            await self.loading.wait()
        self.n_leases += 1
        self.most_leases = max(self.most_leases, self.n_leases)
        self.keep_alive_s = keep_alive_s
        return Lease(self.scripted, self._given_back)

    def _given_back(self) -> None:
        self.n_leases -= 1

    def usable(self, model: str) -> bool:
        id = self.resolve(model)
        return id in self.models and (self.loading is None or self.loading.is_set())

    def progress(self, model: str) -> float | None:
        return self.load_progress if model in self.models else None

    def ready(self) -> bool:
        return self.is_ready

    def loads(self) -> Mapping[str, tuple[int, int]]:
        return {MODEL: (2, 1)}

    def created(self, model: str) -> int:
        return 1_700_000_000 + list(self.models).index(model)

    async def start(self) -> None:
        self.log.append("start")

    async def close(self) -> None:
        self.log.append("close")


@dataclass
class House:
    """The app, its pool and an HTTP client."""

    app: FastAPI
    pool: ScriptedPool
    client: httpx.AsyncClient

    @property
    def worker(self) -> ScriptedWorker:
        return self.pool.scripted

    async def post(self, path: str, **body: object) -> httpx.Response:
        return await self.client.post(path, json={"model": MODEL, **body})

    async def chat(self, **body: object) -> httpx.Response:
        messages = [{"role": "user", "content": "Hi"}]
        return await self.post("/v1/chat/completions", **{"messages": messages, **body})

    async def complete(self, **body: object) -> httpx.Response:
        return await self.post("/v1/completions", **{"prompt": "Hi", **body})

    def prompt(self, number: int = 0) -> Text:
        """The text prompt of the k-th submitted request."""
        prompt = self.worker.requests[number].prompt
        assert isinstance(prompt, Text)
        return prompt


def build(
    script: Script = HELLO,
    *,
    template: str | None = "chatml",
    sampling: SamplingParams | None = None,
    **server: Any,
) -> tuple[FastAPI, ScriptedPool]:
    """An app over a scripted pool; `server` are settings of ServerConfig."""
    model = ModelConfig(
        path=Path("tiny.gguf"),
        engine=EngineConfig(),
        sampling=sampling or SamplingParams(),
        template=template,
    )
    config = Config(server=ServerConfig(**server), models={MODEL: model, "other": model})
    pool = ScriptedPool(config, script)
    return create_app(config, pool), pool


@asynccontextmanager
async def house(
    script: Script = HELLO, gguf_template: str | None = None, **settings: Any
) -> AsyncGenerator[House]:
    """`build`, with a client whose requests run inside this process."""
    app, pool = build(script, **settings)
    pool.scripted.gguf_template = gguf_template
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://corral") as client:
        yield House(app, pool, client)


def events(body: bytes) -> list[Any]:
    """The data of each event of a stream, decoded; checks the framing to the byte."""
    text = body.decode()
    assert "\r" not in text
    assert text.endswith("\n\n")
    data: list[Any] = []
    for frame in text.removesuffix("\n\n").split("\n\n"):
        assert frame.startswith("data: ") and "\n" not in frame, frame
        payload = frame.removeprefix("data: ")
        data.append(payload if payload == "[DONE]" else json.loads(payload))
    return data


def error_of(response: httpx.Response) -> Any:
    """The error object of a response, which must have the one shape."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str)
    return error


@dataclass
class Line:
    """One ASGI request driven by hand: a client that may hang up whenever it wants."""

    app: FastAPI
    path: str
    body: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()
    method: str = "POST"
    sent: list[Message] = field(default_factory=list[Message])
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with every message that the app sends."""
    chunks: Sequence[bytes] | None = None
    """The body in these pieces, in place of `body`."""
    never_ends: bool = False
    """Announce more of the body after the last chunk."""
    n_received: int = 0
    query: bytes = b""

    @classmethod
    def streaming(cls, app: FastAPI, path: str = "/v1/chat/completions", **body: object) -> "Line":
        content: dict[str, object] = {"model": MODEL, "stream": True, **body}
        if path.endswith("chat/completions"):
            content.setdefault("messages", [{"role": "user", "content": "Hi"}])
        return cls(app, path, json.dumps(content).encode())

    async def run(self) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": self.query,
            "headers": list(self.headers),
            "client": ("test", 1),
            "server": ("corral", 80),
        }
        await self.app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        chunks = [self.body] if self.chunks is None else self.chunks
        if self.n_received < len(chunks):
            chunk = chunks[self.n_received]
            self.n_received += 1
            more = self.n_received < len(chunks) or self.never_ends
            return {"type": "http.request", "body": chunk, "more_body": more}
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(dict(message))
        self.arrived.set()

    async def until(self, wanted: Callable[["Line"], bool]) -> None:
        """Wait for messages until `wanted` holds."""
        async with asyncio.timeout(10):
            while not wanted(self):
                self.arrived.clear()
                await self.arrived.wait()

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.sent if m["type"] == "http.response.start"), None)

    @property
    def response_headers(self) -> dict[str, str]:
        start = next(m for m in self.sent if m["type"] == "http.response.start")
        return {name.decode(): value.decode() for name, value in start["headers"]}

    @property
    def received(self) -> bytes:
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")

    @property
    def complete(self) -> bool:
        return any(
            m["type"] == "http.response.body" and not m.get("more_body", False) for m in self.sent
        )
