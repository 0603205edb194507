"""Streams to the byte, and generations that are closed on every way out."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
from starlette.types import Message

from server.api.envelope import Visit
from server.api.sse import EventStream
from server.errors import Unavailable, WorkerDied
from server.ipc import Accepted, Delta, Event, Failed, GenerateRequest
from tests.api.scripted import MODEL, Line, Script, build, events, fail, speak

CHAT = "/v1/chat/completions"
ACCEPTED = Accepted(0, 7)


def hang(_: int, request: GenerateRequest) -> list[Event]:
    """Nothing comes by itself."""
    del request
    return []


def begin(_: int, request: GenerateRequest) -> list[Event]:
    """One word, and no end."""
    del request
    return [ACCEPTED, Delta(0, "Hel", 1)]


async def test_the_headers() -> None:
    app, _ = build(ping_s=0)
    line = Line.streaming(app)
    await line.run()
    assert line.status == 200
    headers = line.response_headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_each_token_is_sent_when_it_comes(path: str) -> None:
    app, pool = build(hang)
    line = Line.streaming(app, path, prompt="Hi")
    task = asyncio.create_task(line.run())
    await pool.scripted.submitted.wait()
    generation = pool.scripted.generations[0]
    generation.push(ACCEPTED)
    for word in ("one", "two", "three"):
        generation.push(Delta(0, word, 1))
        await line.until(lambda line, word=word: word.encode() in line.received)
        assert not line.complete
    for event in speak("!")(0, pool.scripted.requests[0])[1:]:
        generation.push(event)
    await task
    assert line.complete
    assert events(line.received)[-1] == "[DONE]"
    assert pool.scripted.cancelled == []


async def test_the_status_waits_for_the_first_event() -> None:
    app, pool = build(hang)
    line = Line.streaming(app)
    task = asyncio.create_task(line.run())
    await pool.scripted.submitted.wait()
    assert line.sent == []
    pool.scripted.generations[0].push(Failed(0, Unavailable("stopping")))
    await task
    assert line.status == 503


async def test_no_answer_begins_before_all_choices_are_accepted() -> None:
    app, pool = build(hang)
    line = Line.streaming(app, n=2)
    task = asyncio.create_task(line.run())
    await pool.scripted.submitted.wait()
    first, second = pool.scripted.generations
    first.push(ACCEPTED)
    first.push(Delta(0, "early", 1))
    second.push(Failed(0, Unavailable("stopping")))
    await task
    assert line.status == 503
    assert pool.scripted.cancelled == [0]


class TestErrorsAfterTheHeaders:
    async def test_end_the_stream(self) -> None:
        app, pool = build(fail(WorkerDied("gone"), ACCEPTED, Delta(0, "Hel", 1)))
        line = Line.streaming(app)
        await line.run()
        *chunks, last = events(line.received)
        assert line.status == 200 and line.complete
        assert chunks[-1]["choices"][0]["delta"] == {"content": "Hel"}
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
        assert last == {
            "error": {
                "message": "gone",
                "type": "server_error",
                "param": None,
                "code": "worker_died",
            }
        }
        assert b"[DONE]" not in line.received
        assert pool.scripted.cancelled == []

    async def test_of_one_choice_close_the_others(self) -> None:
        def script(number: int, _: GenerateRequest) -> list[Event]:
            last = [Failed(0, WorkerDied("gone"))] if number == 1 else []
            return [ACCEPTED, *last]

        app, pool = build(script)
        line = Line.streaming(app, n=3)
        await line.run()
        assert events(line.received)[-1]["error"]["code"] == "worker_died"
        assert sorted(pool.scripted.cancelled) == [0, 2]

    async def test_that_nobody_foresaw(self, caplog: pytest.LogCaptureFixture) -> None:
        app, _ = build(lambda _, __: [ACCEPTED, ACCEPTED])
        line = Line.streaming(app)
        await line.run()
        assert events(line.received)[-1]["error"]["code"] == "internal_error"
        assert "twice" in caplog.text

    async def test_are_counted(self) -> None:
        app, _ = build(fail(WorkerDied("gone"), ACCEPTED))
        await Line.streaming(app).run()
        scrape = Line(app, "/metrics", method="GET")
        await scrape.run()
        assert b'model="org/tiny",status="500"} 1.0' in scrape.received


class TestClientGone:
    """Whenever the client leaves, its generations are closed and no task is left behind."""

    @staticmethod
    async def leave(line: Line, task: asyncio.Task[None]) -> None:
        line.hung_up.set()
        async with asyncio.timeout(10):
            await task

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("n", [1, 3])
    async def test_while_it_waits(self, stream: bool, n: int) -> None:
        app, pool = build(hang)
        line = Line.streaming(app, stream=stream, n=n)
        before = asyncio.all_tasks()
        task = asyncio.create_task(line.run())
        await pool.scripted.submitted.wait()
        await self.leave(line, task)
        assert line.status == 499
        assert sorted(pool.scripted.cancelled) == list(range(n))
        assert_no_new_tasks(before)

    @pytest.mark.parametrize("stream", [False, True])
    async def test_while_the_model_loads(self, stream: bool) -> None:
        app, pool = build(hang)
        pool.loading = asyncio.Event()
        line = Line.streaming(app, stream=stream)
        task = asyncio.create_task(line.run())
        await self.leave(line, task)
        assert line.status == 499
        assert pool.scripted.requests == []

    @pytest.mark.parametrize("n", [1, 3])
    async def test_in_the_middle_of_a_stream(self, n: int) -> None:
        app, pool = build(begin)
        line = Line.streaming(app, n=n)
        task = asyncio.create_task(line.run())
        await line.until(lambda line: line.received.count(b'"Hel"') == n)
        before = asyncio.all_tasks() - {task}
        n_sent = len(line.sent)
        await self.leave(line, task)
        # Nothing more is said to a client that has gone.
        assert len(line.sent) == n_sent
        assert sorted(pool.scripted.cancelled) == list(range(n))
        await settle()
        assert_no_new_tasks(before)
        assert not any("_pump" in repr(task) for task in asyncio.all_tasks())

    @pytest.mark.parametrize("n", [1, 3])
    async def test_in_the_middle_of_a_whole_answer(self, n: int) -> None:
        app, pool = build(begin)
        line = Line.streaming(app, n=n, stream=False)
        task = asyncio.create_task(line.run())
        await pool.scripted.submitted.wait()
        await settle()
        await self.leave(line, task)
        assert line.status == 499
        assert sorted(pool.scripted.cancelled) == list(range(n))
        await settle()
        assert not any("_pump" in repr(task) for task in asyncio.all_tasks())

    async def test_before_the_first_byte(self) -> None:
        app, pool = build(lambda _, __: [ACCEPTED])
        line = Line.streaming(app)

        async def refuse(message: Message) -> None:
            del message
            raise OSError("the client has gone")

        line.send = refuse
        with pytest.raises(OSError, match="has gone"):
            await line.run()
        assert pool.scripted.cancelled == [0]

    async def test_when_a_send_fails_in_the_middle(self) -> None:
        app, pool = build(begin)
        line = Line.streaming(app)
        plain_send = line.send

        async def send(message: Message) -> None:
            await plain_send(message)
            if b"Hel" in message.get("body", b""):
                raise OSError("the client has gone")

        line.send = send
        with pytest.raises(OSError, match="has gone"):
            await line.run()
        assert pool.scripted.cancelled == [0]

    @pytest.mark.parametrize("script", [hang, begin])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_when_the_server_cancels_it(self, script: Script, stream: bool) -> None:
        app, pool = build(script)
        line = Line.streaming(app, stream=stream)
        task = asyncio.create_task(line.run())
        await pool.scripted.submitted.wait()
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.scripted.cancelled == [0]


@pytest.mark.parametrize("n", [1, 3])
async def test_a_server_that_stops_says_so_in_the_stream(n: int) -> None:
    app, pool = build(begin)
    line = Line.streaming(app, n=n)
    task = asyncio.create_task(line.run())
    await line.until(lambda line: line.received.count(b'"Hel"') == n)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    last = events(line.received)[-1]
    assert last["error"]["code"] == "unavailable"
    assert b"[DONE]" not in line.received
    assert sorted(pool.scripted.cancelled) == list(range(n))


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(50):
        await asyncio.sleep(0)


def assert_no_new_tasks(before: set[asyncio.Task[Any]]) -> None:
    after = asyncio.all_tasks() - before
    assert not {task for task in after if not task.cancelling()}, after


class TestEventStream:
    @staticmethod
    def stream(line: Line, ping_s: float, release: asyncio.Event) -> EventStream:
        async def one() -> AsyncGenerator[bytes]:
            yield b'data: {"a":1}\n\n'
            await release.wait()

        headers: Mapping[str, str] = {"x-more": "yes"}
        return EventStream(one(), release.set, Visit(0.0, "id", line.send), ping_s, headers)

    async def test_pings_are_comments(self) -> None:
        line = Line(build()[0], "/")
        release = asyncio.Event()
        stream = self.stream(line, 0.001, release)
        task = asyncio.create_task(
            stream({"type": "http", "method": "POST"}, line.receive, line.send)
        )
        await line.until(lambda line: b"ping" in line.received)
        release.set()
        await task
        assert line.received.startswith(b'data: {"a":1}\n\n: ping\n\n')
        assert line.received.endswith(b": ping\n\ndata: [DONE]\n\n")
        assert line.response_headers["x-more"] == "yes"

    async def test_no_pings(self) -> None:
        line = Line(build()[0], "/")
        release = asyncio.Event()
        release.set()
        stream = self.stream(line, 0, release)
        await stream({"type": "http", "method": "POST"}, line.receive, line.send)
        assert line.received == b'data: {"a":1}\n\ndata: [DONE]\n\n'

    async def test_a_generator_that_never_started_is_closed(self) -> None:
        line = Line(build()[0], "/")
        release = asyncio.Event()
        stream = self.stream(line, 0, release)

        async def refuse(_: Message) -> None:
            raise OSError("the client has gone")

        with pytest.raises(OSError, match="has gone"):
            await stream({"type": "http", "method": "POST"}, line.receive, refuse)
        assert release.is_set()


async def test_characters_are_sent_as_they_are() -> None:
    text = 'é"\\\n\r\u2028 </s> 🐎'
    app, _ = build(speak(text))
    line = Line.streaming(app, "/v1/completions", prompt="Hi")
    await line.run()
    assert events(line.received)[0]["choices"][0]["text"] == text
    assert "🐎".encode() in line.received
    assert MODEL.encode() in line.received
    assert json.dumps(text).encode() not in line.received
