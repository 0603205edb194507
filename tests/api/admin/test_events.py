"""GET /admin/events: all that happens to the models, in order."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.api.pooled import Pooled, models, pooled, until
from tests.api.scripted import Line
from tests.api.test_openapi import check, content


@asynccontextmanager
async def listening(p: Pooled) -> AsyncGenerator[Line]:
    """A client that listens until it leaves."""
    line = Line(p.app, "/admin/events", method="GET", chunks=[])
    running = asyncio.create_task(line.run())
    await line.until(lambda line: line.status == 200)
    # What was there before it came, and its place among the listeners.
    await asyncio.sleep(0)
    yield line
    line.hung_up.set()
    await running


def told(line: Line) -> list[dict[str, Any]]:
    frames = line.received.decode().removesuffix("\n\n").split("\n\n")
    return [json.loads(frame.removeprefix("data: ")) for frame in frames if "{" in frame]


def states(line: Line, model: str = "m") -> list[str]:
    """Without repetitions, as of a load that goes on."""
    return list(dict.fromkeys(e["state"] for e in told(line) if e.get("model") == model))


def described(p: Pooled, events: list[dict[str, Any]]) -> None:
    """They are as /openapi.json says."""
    document = p.app.openapi()
    schema = content(document, "/v1/admin/events", "200", "text/event-stream", "get")
    for event in events:
        check(document, schema, event)


async def test_the_life_of_a_model(tmp_path: Path) -> None:
    began = time.time()
    async with pooled(tmp_path, models(tmp_path, "m", "n")) as p, listening(p) as line:
        assert line.response_headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (await p.complete("m")).status_code == 200
        assert (await p.order("unload", model="m")).status_code == 200
        await line.until(lambda line: states(line)[-1:] == ["unloaded"])
        assert states(line) == ["waiting", "loading", "ready", "unloading", "unloaded"]
        assert states(line, "n") == []
    seen = told(line)
    described(p, seen)
    assert all(e.keys() == {"type", "model", "state", "progress", "reason", "at"} for e in seen)
    assert {e["type"] for e in seen} == {"state"}
    progress = [e["progress"] for e in seen if e["state"] == "loading"]
    assert progress == sorted(progress) and progress[-1] == 1
    assert [e["reason"] for e in seen if e["state"] == "unloading"] == ["as asked"]
    times = [e["at"] for e in seen]
    assert began <= times[0] and times == sorted(times) and times[-1] <= time.time()


async def test_who_comes_later_hears_how_things_are(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "a", "b", "c"), gated=True) as p:
        asking = asyncio.create_task(p.complete("b"))
        await p.open_gate("b: bad magic")
        await asking
        await until(p.pool, "b", "failed")
        async with listening(p) as line:
            await line.until(lambda line: bool(told(line)))
            (failed,) = told(line)
    assert (failed["model"], failed["state"]) == ("b", "failed")
    assert failed["reason"] == "b: bad magic"


async def test_several_listen_and_leave(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m")) as p:
        async with listening(p) as one:
            async with listening(p) as other:
                assert (await p.complete("m")).status_code == 200
                for line in (one, other):
                    await line.until(lambda line: states(line)[-1:] == ["ready"])
            n_heard = len(told(other))
            await p.order("unload", model="m")
            await one.until(lambda line: states(line)[-1:] == ["unloaded"])
            assert len(told(other)) == n_heard
        # Nobody is left who could fall behind, but for the app's own listener.
        assert len(vars(p.pool.events)["_listeners"]) == 1


async def test_a_reload_is_an_event(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m")) as p, listening(p) as line:
        p.config = p.config_with(models(tmp_path, "m", "n"))
        await p.client.post("/admin/reload")
        await line.until(lambda line: bool(told(line)))
        (event,) = told(line)
    described(p, [event])
    assert event.pop("at") > 0
    assert event == {
        "type": "reloaded", "added": ["n"], "changed": [], "removed": [], "restart_needed": [],
    }  # fmt: skip


async def test_it_ends_when_the_server_stops(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m")) as p:
        line = Line(p.app, "/admin/events", method="GET", chunks=[])
        running = asyncio.create_task(line.run())
        await line.until(lambda line: line.status == 200)
        await asyncio.sleep(0)
        p.pool.events.close()
        await running
    assert line.complete
    assert line.received == b"data: [DONE]\n\n"
