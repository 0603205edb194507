"""Streams that begin before their model is loaded, over a worker whose load waits for the test."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from openai import AsyncOpenAI

from server.api import loading
from server.errors import ModelLoadError, Unavailable
from tests.api.pooled import Pooled, models, pooled, until, until_told
from tests.api.scripted import MODEL, Line, build, error_of, events

M = "m"
CHAT = [{"role": "user", "content": "Hi"}]

BODIES: Mapping[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": CHAT},
    "/v1/completions": {"prompt": "words"},
    "/v1/responses": {"input": "Hi"},
}
PATHS = [*BODIES]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PATIENCE_S", 0.0)
    monkeypatch.setattr(loading, "TELL_S", 0.005)


@asynccontextmanager
async def gated(folder: Path, **server: Any) -> AsyncGenerator[Pooled]:
    async with pooled(folder, models(folder, M), gated=True, **server) as p:
        yield p


def stream(p: Pooled, path: str, **body: object) -> tuple[Line, asyncio.Task[None]]:
    """A stream that has begun to be asked for."""
    line = Line.streaming(p.app, path, **{"model": M, **BODIES[path], **body})
    return line, asyncio.create_task(line.run())


def comments(body: bytes) -> list[str]:
    return [frame for frame in body.decode().split("\n\n") if frame.startswith(":")]


def without_comments(body: bytes) -> bytes:
    frames = body.decode().removesuffix("\n\n").split("\n\n")
    return "".join(f"{frame}\n\n" for frame in frames if not frame.startswith(":")).encode()


def said(what: str) -> Callable[[Line], bool]:
    return lambda line: what.encode() in line.received


@pytest.mark.parametrize("path", PATHS)
async def test_comments_tell_how_far_the_load_has_come(tmp_path: Path, path: str) -> None:
    async with gated(tmp_path) as p:
        line, running = stream(p, path)
        await line.until(said(": loading 42%\n\n"))
        assert line.status == 200
        assert line.response_headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "content-length" not in line.response_headers
        assert line.response_headers["x-request-id"]
        assert not without_comments(line.received).strip()
        await p.open_gate()
        await running
        assert line.complete
        plain = (
            await p.client.post(path, json={"model": M, "stream": True, **BODIES[path]})
        ).content
    told = {": waiting for memory", ": loading 0%", ": loading 42%", ": ping"}
    assert set(comments(line.received)) <= told
    assert [m["type"] for m in line.sent].count("http.response.start") == 1
    # What comes then is what a loaded model streams.
    assert kinds(without_comments(line.received)) == kinds(plain)
    assert comments(plain) == []


def kinds(body: bytes) -> list[str]:
    """Of its events, in order; how its text is cut up is a matter of time."""
    return list(dict.fromkeys(frame.partition("{")[0] for frame in body.decode().split("\n\n")))


async def test_one_that_comes_within_our_patience_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PATIENCE_S", 60.0)
    async with pooled(tmp_path, models(tmp_path, M)) as p:
        response = await p.complete(M, stream=True)
    assert comments(response.content) == []
    assert events(response.content)[-1] == "[DONE]"


async def test_an_early_error_has_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PATIENCE_S", 60.0)
    async with gated(tmp_path) as p:
        asking = asyncio.create_task(p.complete(M, stream=True))
        await until_told(p.pool, M, 0.42)
        await p.open_gate("m: bad magic")
        response = await asking
        assert response.status_code == 500
        assert error_of(response)["code"] == "model_load_error"
        assert response.headers["x-should-retry"] == "false"
        # It cools down, so the next is told at once.
        assert (await p.complete(M, stream=True)).status_code == 500
        unknown = await p.complete("nobody", stream=True)
    assert unknown.status_code == 404
    assert error_of(unknown)["code"] == "model_not_found"


@pytest.mark.parametrize("path", PATHS)
async def test_a_late_error_is_an_event(tmp_path: Path, path: str) -> None:
    async with gated(tmp_path) as p:
        line, running = stream(p, path)
        await line.until(said(": loading 42%"))
        await p.open_gate("m: bad magic")
        await running
        metrics = (await p.client.get("/metrics")).text
    assert line.status == 200 and line.complete
    (event,) = without_comments(line.received).decode().removesuffix("\n\n").split("\n\n")
    if path == "/v1/responses":
        assert event.startswith('event: error\ndata: {"type":"error","sequence_number":0,')
        assert "bad magic" in event and "model_load_error" in event
    else:
        assert event.startswith('data: {"error": {"message": "m: bad magic"')
    # Counted as what it came to.
    endpoint = path.removeprefix("/v1")
    assert f'corral_requests_total{{endpoint="{endpoint}",model="m",status="500"}} 1.0' in metrics


async def test_a_bad_field_is_found_once_the_model_is_there(tmp_path: Path) -> None:
    async with gated(tmp_path) as p:
        line, running = stream(p, "/v1/completions", prompt="refuse")
        await line.until(said(": loading 42%"))
        await p.open_gate()
        await running
    (event,) = events(without_comments(line.received))
    assert event["error"]["param"] == "prompt"


async def test_what_is_ignored_is_told_as_a_comment(tmp_path: Path) -> None:
    async with gated(tmp_path) as p:
        line, running = stream(p, "/v1/completions", wibble="x")
        await line.until(said(": loading 42%"))
        await p.open_gate()
        await running
    assert "x-corral-ignored" not in line.response_headers
    assert ": x-corral-ignored: wibble" in comments(line.received)
    assert events(without_comments(line.received))[-1] == "[DONE]"


async def test_a_client_that_leaves_is_no_longer_waited_for(tmp_path: Path) -> None:
    async with gated(tmp_path) as p:
        line, running = stream(p, "/v1/completions")
        await line.until(said(": loading 42%"))
        resident = p.pool.residents[M]
        assert resident.n_waiters == 1
        line.hung_up.set()
        await running
        assert (resident.n_waiters, resident.n_users) == (0, 0)
        n_sent = len(line.sent)
        await p.open_gate()
        await until(p.pool, M, "ready")
        assert p.pool.loads() == {M: (0, 0)}
        assert len(line.sent) == n_sent
    # Not a word of an error either.
    assert not without_comments(line.received).strip()


async def test_a_whole_answer_waits_for_load_wait_s(tmp_path: Path) -> None:
    async with gated(tmp_path, load_wait_s=0.05) as p:
        response = await p.complete(M)
        assert response.status_code == 503
        assert error_of(response)["code"] == "unavailable"
        assert "still loading after 0.05 s" in error_of(response)["message"]
        assert int(response.headers["retry-after"]) >= 1
        # A stream has all the time there is.
        line, running = stream(p, "/v1/completions")
        await line.until(lambda line: len(comments(line.received)) > 20)
        await p.open_gate()
        await running
        assert events(without_comments(line.received))[-1] == "[DONE]"
        assert (await p.complete(M)).status_code == 200


async def test_the_server_stops_while_a_stream_waits(tmp_path: Path) -> None:
    async with gated(tmp_path) as p:
        line, running = stream(p, "/v1/completions")
        await line.until(said(": loading 42%"))
        await p.pool.close()
        await running
    assert line.complete
    (event,) = events(without_comments(line.received))
    assert event["error"]["code"] == "unavailable"
    assert event["error"]["message"] == "the server is stopping"
    assert not psutil.Process().children()


async def test_a_request_that_is_given_up_takes_its_answer_with_it(tmp_path: Path) -> None:
    """As the server does when its patience is at its end."""
    async with gated(tmp_path) as p:
        line, running = stream(p, "/v1/completions")
        await line.until(said(": loading 42%"))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0)
        assert p.pool.residents[M].n_waiters == 0


async def test_a_model_that_waits_for_memory_says_so() -> None:
    app, pool = build()
    pool.loading = asyncio.Event()
    line = Line.streaming(app)
    running = asyncio.create_task(line.run())
    await line.until(said(": waiting for memory\n\n"))
    pool.load_progress = 0.5
    await line.until(said(": loading 50%\n\n"))
    pool.loading.set()
    await running
    assert events(without_comments(line.received))[-1] == "[DONE]"
    assert pool.n_leases == 0


async def test_what_comes_after_the_load_is_not_called_waiting_for_memory() -> None:
    """As a long prompt that is looked at."""
    app, pool = build(lambda _, __: [])
    pool.loading = asyncio.Event()
    line = Line.streaming(app)
    running = asyncio.create_task(line.run())
    await line.until(said(": waiting for memory\n\n"))
    pool.loading.set()
    await line.until(said(": ping\n\n"))
    line.hung_up.set()
    await running
    assert pool.scripted.cancelled == [0]
    assert pool.n_leases == 0


async def test_our_own_mistakes_are_events_too(caplog: pytest.LogCaptureFixture) -> None:
    app, pool = build()

    def broken(_: int, __: object) -> list[Any]:
        raise ZeroDivisionError

    pool.scripted.script = broken
    pool.loading = asyncio.Event()
    line = Line.streaming(app)
    running = asyncio.create_task(line.run())
    await line.until(said(": waiting"))
    pool.loading.set()
    await running
    (event,) = events(without_comments(line.received))
    assert event["error"]["code"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text
    assert pool.n_leases == 0


# The official SDK.


@asynccontextmanager
async def sdk(p: Pooled) -> AsyncGenerator[AsyncOpenAI]:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(p.app))
    async with AsyncOpenAI(
        base_url="http://corral/v1", api_key="none", http_client=http, max_retries=0
    ) as client:
        yield client


async def chatted(client: AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(
        model=M, messages=[{"role": "user", "content": "Hi"}], stream=True
    )
    return "".join([c.choices[0].delta.content or "" async for c in stream])


async def completed(client: AsyncOpenAI) -> str:
    stream = await client.completions.create(model=M, prompt="words", stream=True)
    return "".join([c.choices[0].text async for c in stream])


async def responded(client: AsyncOpenAI) -> str:
    stream = await client.responses.create(model=M, input="Hi", stream=True)
    return "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])


SAY = [chatted, completed, responded]


@pytest.mark.parametrize("say", SAY)
async def test_the_sdk_reads_past_the_comments(
    tmp_path: Path, say: Callable[[AsyncOpenAI], Any]
) -> None:
    async with gated(tmp_path) as p, sdk(p) as client:
        saying = asyncio.create_task(say(client))
        await until_told(p.pool, M, 0.42)
        await p.open_gate()
        assert await saying == "Hello world"


@pytest.mark.parametrize("say", SAY)
async def test_the_sdk_raises_a_late_error(
    tmp_path: Path, say: Callable[[AsyncOpenAI], Any]
) -> None:
    async with gated(tmp_path) as p, sdk(p) as client:
        saying = asyncio.create_task(say(client))
        await until_told(p.pool, M, 0.42)
        await p.open_gate("m: bad magic")
        with pytest.raises(openai.APIError, match="bad magic") as caught:
            await saying
    assert not isinstance(caught.value, openai.APIStatusError)
    assert caught.value.code == "model_load_error"


async def test_errors_of_the_pool_have_their_status_where_the_model_is_not_loaded() -> None:
    app, pool = build()
    pool.loading = asyncio.Event()
    for error, status in ((Unavailable("no room"), 503), (ModelLoadError("bad"), 500)):
        pool.error = error
        line = Line.streaming(app, model=MODEL)
        await line.run()
        assert line.status == status
