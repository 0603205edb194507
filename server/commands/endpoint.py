"""The server that an evaluation asks: one that runs, or one of its own for as long as it takes."""

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from json import dumps
from pathlib import Path
from queue import SimpleQueue
from re import compile
from tempfile import TemporaryDirectory
from typing import IO, Any, cast
from urllib.parse import quote

import httpx2
from rich.console import Console
from rich.markup import escape

from server.commands.address import called
from server.commands.failure import CommandError
from server.commands.session import Wishes, only
from server.config import Config

SERVES = compile(r"serves .* at (http://\S+)/v1")
STOP_S = 10.0
ASK_S = 5.0
LOADED_S = 600.0
"""Of one request; a server that is still loading says so earlier."""

STILL_LOADING = 503
NOT_FOUND = 404
UNAUTHORIZED = (401, 403)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked; `url` without /v1, `key` empty if none is needed."""

    url: str
    model: str
    key: str = ""

    @property
    def headers(self) -> Mapping[str, str]:
        """Of every request."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


@contextmanager
def reached(
    read: Callable[[], Config], model: str, url: str | None, key: str, n_slots: int, status: Console
) -> Generator[Endpoint]:
    """The model, loaded: at `url`, else at the configured address, else by a server of our own.

    Raises CommandError, ConfigError or ModelNotFound.
    """
    if url is not None:
        endpoint = Endpoint(url.rstrip("/").removesuffix("/v1"), model, key)
        _check(endpoint)
        _load(endpoint, status)
        yield endpoint
        return
    config = read()
    endpoint = Endpoint(_address(config), model, key)
    if config.server.port and _knows(endpoint):
        _load(endpoint, status)
        yield endpoint
        return
    with _own(config, model, n_slots, status) as endpoint:
        _load(endpoint, status)
        yield endpoint


def _address(config: Config) -> str:
    host = called(config.server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.server.port}"


def _get(endpoint: Endpoint, path: str, timeout: float = ASK_S) -> httpx2.Response:
    """Raises httpx2.HTTPError."""
    return httpx2.get(f"{endpoint.url}{path}", headers=dict(endpoint.headers), timeout=timeout)


def _knows(endpoint: Endpoint) -> bool:
    """Whether a server is there that has the model."""
    try:
        answer = _get(endpoint, f"/v1/models/{quote(endpoint.model)}")
    except httpx2.HTTPError:
        return False
    return answer.is_success and "id" in answer.text


def _check(endpoint: Endpoint) -> None:
    """Raises CommandError where nothing answers, or nothing that has the model."""
    try:
        answer = _get(endpoint, f"/v1/models/{quote(endpoint.model)}")
        if answer.status_code == NOT_FOUND:
            listed = _get(endpoint, "/v1/models")
            ids = _ids(listed) if listed.is_success else []
            near = get_close_matches(endpoint.model, ids, cutoff=0.3) or ids[:6]
            meant = f"; it has {', '.join(near)}" if near else ""
            raise CommandError(f"{endpoint.url} has no model {endpoint.model!r}{meant}")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise CommandError(
            f"nothing answers at {endpoint.url} ({error}): start `corral serve` there, or leave "
            "--url out to have a server started for this"
        ) from error
    if answer.status_code in UNAUTHORIZED:
        raise CommandError(f"{endpoint.url} wants a key: --api-key, or OPENAI_API_KEY")


def _ids(listed: httpx2.Response) -> list[str]:
    answer = _json(listed)
    models = cast("list[dict[str, object]]", answer.get("data") or [])
    return [str(model.get("id")) for model in models]


def _json(answer: httpx2.Response) -> dict[str, object]:
    try:
        found: object = answer.json()
    except ValueError:
        return {}
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}


def reason(answer: httpx2.Response) -> str:
    """Why a server refuses."""
    error = _json(answer).get("error")
    message = cast("dict[str, object]", error).get("message") if isinstance(error, dict) else error
    return str(message or answer.text.strip()[:500] or f"status {answer.status_code}")


def _load(endpoint: Endpoint, status: Console) -> None:
    """Wait until the model is loaded, where the server can tell. Raises CommandError."""
    pause = threading.Event()
    with status.status(f"loading {escape(endpoint.model)}"):
        while True:
            path = f"/tokenizer_info?model={quote(endpoint.model)}"
            try:
                answer = _get(endpoint, path, LOADED_S)
            except httpx2.HTTPError as error:
                raise CommandError(f"{endpoint.url}: {error}") from error
            if answer.is_success or answer.status_code == NOT_FOUND:
                return
            if answer.status_code != STILL_LOADING or "retry-after" not in answer.headers:
                raise CommandError(reason(answer))
            pause.wait(1.0)


@contextmanager
def _own(config: Config, model: str, n_slots: int, status: Console) -> Generator[Endpoint]:
    """A server with that model alone, on a free port, ended with the context."""
    alone, id = only(config, model, Wishes({}, {}))
    settings: dict[str, Any] = alone.models[id].model_dump(mode="json", exclude_defaults=True)
    settings["path"] = str(alone.models[id].path.resolve())
    settings.setdefault("engine", {})["n_slots"] = n_slots
    with TemporaryDirectory(prefix="corral-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dumps({"models": {id: settings}, "hf_cache": "off"}))
        command = (sys.executable, "-m", "server", "serve", "--config", str(file))
        command += ("--host", "127.0.0.1", "--port", "0", "--log-level", "info")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            with status.status("starting a server"):
                url = _serving(process.stderr)
            yield Endpoint(url, id)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _serving(log: IO[str]) -> str:
    """Where the server says that it serves; its log is read to its end. Raises CommandError."""
    said = SimpleQueue[str | None]()
    last = deque[str](maxlen=3)

    def read() -> None:
        with log:
            for line in log:
                last.append(line.strip())
                if found := SERVES.search(line):
                    said.put(found[1])
        said.put(None)

    threading.Thread(target=read, daemon=True).start()
    url = said.get()
    if url is None:
        raise CommandError(f"no server could be started: {' '.join(last)}")
    return url
