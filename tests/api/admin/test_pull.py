"""POST /admin/models/pull, over a hub on this machine."""

import asyncio
import json
import threading
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import close_session

from server.api.admin.pull import the_hub
from server.pool.hub import Hub
from tests.api.scripted import House, Line, error_of, events, house
from tests.api.test_openapi import check, content
from tests.pool.stand_in_hub import StandIn, serve

REPO = "someone/mix-GGUF"
FILE = "mix.Q4_K_M.gguf"
DATA = b"GGUF" * 100_000
PATH = "/admin/models/pull"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Generator[StandIn]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serve() as hub:
        hub.repos[REPO] = {FILE: DATA, "mix.Q8_0.gguf": b"GGUF"}
        yield hub
    close_session()


def use(h: House, stand_in: StandIn, cache: Path) -> None:
    async def ours() -> Hub:
        return Hub(stand_in.url, None, cache, ())

    h.app.dependency_overrides[the_hub] = ours


async def ask(h: House, **body: object) -> httpx.Response:
    return await h.client.post(PATH, json=body)


async def test_a_pull_streams_its_progress(stand_in: StandIn, tmp_path: Path) -> None:
    async with house() as h:
        use(h, stand_in, tmp_path)
        response = await ask(h, repo=REPO)
    assert response.status_code == 200
    choice, *progress, done, end = events(response.content)
    document = h.app.openapi()
    schema = content(document, f"/v1{PATH}", "200", "text/event-stream")
    for event in (choice, *progress, done):
        check(document, schema, event)
    assert choice["type"] == "choice"
    assert choice["reason"].startswith("Q4_K_M, 390.6 KiB: the largest of Q4_K_M to Q6_K")
    assert choice["files"] == [{"path": FILE, "size": len(DATA)}]
    assert {event["type"] for event in progress} == {"progress"}
    assert (progress[-1]["done"], progress[-1]["size"]) == (len(DATA), len(DATA))
    (model,) = done["models"]
    assert (done["type"], model["id"], end) == ("done", "mix.Q4_K_M", "[DONE]")
    assert Path(model["path"]).read_bytes() == DATA
    assert Path(model["path"]).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"repo": REPO, "file": ":Q5_0"}, "file", "nothing matches :Q5_0; there is mix.Q8_0"),
        ({"repo": "a/none"}, "repo", "there is no model a/none"),
        ({"repo": REPO, "revision": "v9"}, "revision", "no such revision"),
        ({"repo": REPO, "local_dir": "/etc"}, "local_dir", ""),
        ({}, "repo", ""),
    ],
)
async def test_what_cannot_be_had_is_refused(
    stand_in: StandIn, tmp_path: Path, body: dict[str, object], param: str, message: str
) -> None:
    async with house() as h:
        use(h, stand_in, tmp_path)
        response = await ask(h, **body)
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert message in error_of(response)["message"]


async def test_a_hub_that_is_away_is_a_502(stand_in: StandIn, tmp_path: Path) -> None:
    async with house() as h:
        stand_in.url = "http://127.0.0.1:1"
        use(h, stand_in, tmp_path)
        response = await ask(h, repo=REPO)
    assert (response.status_code, error_of(response)["code"]) == (502, "pull_error")


async def test_what_goes_wrong_later_is_an_event(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.digests[FILE] = "0" * 64
    async with house() as h:
        use(h, stand_in, tmp_path)
        response = await ask(h, repo=REPO, file=FILE)
    assert response.status_code == 200
    assert "its checksum is" in events(response.content)[-1]["error"]["message"]


async def test_a_page_in_a_browser_cannot_start_a_pull(stand_in: StandIn, tmp_path: Path) -> None:
    async with house() as h:
        use(h, stand_in, tmp_path)
        body = json.dumps({"repo": REPO})
        response = await h.client.post(PATH, content=body, headers={"content-type": "text/plain"})
    assert response.status_code == 400
    assert "application/json is wanted" in error_of(response)["message"]
    assert stand_in.requests == []


async def test_a_client_that_leaves_ends_its_pull_and_a_second_waits_for_nobody(
    stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.stall_after = 100_000
    body = json.dumps({"repo": REPO, "file": FILE}).encode()
    async with house() as h:
        use(h, stand_in, tmp_path)
        line = Line(h.app, PATH, body, [(b"content-type", b"application/json")])
        running = asyncio.create_task(line.run())
        assert await asyncio.to_thread(stand_in.stalled.wait, 60)
        second = await ask(h, repo=REPO, file=FILE)
        told = events(second.content)[-1]["error"]["message"]
        assert told == f"{FILE} is being fetched already"
        line.hung_up.set()
        await running
        stand_in.stall_after = None
        await asyncio.to_thread(stand_in.go_on.set)
        await asyncio.to_thread(until_unlocked)
        third = await ask(h, repo=REPO, file=FILE)
    assert events(third.content)[-2]["type"] == "done"
    first, last = stand_in.sent(FILE)
    assert first.range is None
    assert last.range == "bytes=100000-"


def until_unlocked() -> None:
    """Wait for the end of the pulls' threads."""
    for thread in threading.enumerate():
        if thread.name == "pull":
            thread.join(60)
