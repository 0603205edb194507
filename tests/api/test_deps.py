"""An end of waiting when the client has gone."""

import asyncio

import pytest
from starlette.requests import Request

from server.api.deps import until_gone
from server.api.errors import ClientGone
from tests.api.scripted import MODEL, Line, build, house


def request_of(line: Line) -> Request:
    return Request({"type": "http"}, line.receive)


async def test_waiting_ends_when_the_client_leaves() -> None:
    line = Line(build()[0], "/", chunks=[])
    line.hung_up.set()
    with pytest.raises(ClientGone):
        async with until_gone(request_of(line)):
            await asyncio.Event().wait()
    # The task goes on undisturbed.
    await asyncio.sleep(0)


async def test_more_of_the_body_is_no_leave() -> None:
    line = Line(build()[0], "/", chunks=[b"a", b"b"])
    async with until_gone(request_of(line)):
        while line.n_received < 2:
            await asyncio.sleep(0)


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    line = Line(build()[0], "/", chunks=[])
    begun = asyncio.Event()

    async def wait() -> None:
        async with until_gone(request_of(line)):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await begun.wait()
    task.cancel()
    line.hung_up.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_counts_more_than_a_leave() -> None:
    line = Line(build()[0], "/", chunks=[])
    begun = asyncio.Event()

    async def wait() -> None:
        async with until_gone(request_of(line)):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await begun.wait()
    await asyncio.sleep(0)
    line.hung_up.set()
    # The watcher has cancelled the task by now, but the task has not run since.
    await asyncio.sleep(0)
    assert task.cancelling() == 1 and not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_pass() -> None:
    line = Line(build()[0], "/", chunks=[])
    with pytest.raises(KeyError):
        async with until_gone(request_of(line)):
            raise KeyError


async def test_whole_answers_wait_for_so_long_and_streams_for_ever() -> None:
    async with house(load_wait_s=7) as h:
        await h.chat()
        assert h.pool.wait_s == 7
        # Who hears nothing has no more patience.
        await h.chat(stream=True)
        assert h.pool.wait_s == 7
        h.pool.wait_s = -1
        h.pool.loading = asyncio.Event()
        line = Line.streaming(h.app)
        running = asyncio.create_task(line.run())
        async with asyncio.timeout(10):
            while h.pool.wait_s == -1:
                await asyncio.sleep(0)
        assert h.pool.wait_s is None
        h.pool.loading.set()
        await running
        assert line.complete


async def test_only_ids_become_labels() -> None:
    async with house() as h:
        await h.chat(model="nobody")
        await h.chat(model=MODEL)
        text = (await h.client.get("/metrics")).text
    assert "nobody" not in text
    assert f'model="{MODEL}"' in text
