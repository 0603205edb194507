"""Background responses and the life of the server: stops, restarts, failures, full stores."""

from pathlib import Path
from typing import Any

import pytest

from server.errors import WorkerDied
from server.ipc import Accepted, Delta, Event, Failed, GenerateRequest
from tests.api.openai.responses.wire import checked, keeping, whole
from tests.api.scripted import House, error_of, fail

PATH = "/v1/responses"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def slow(_: int, __: GenerateRequest) -> list[Event]:
    return [Accepted(0, 7), Delta(0, "Hel", 1)]


async def begun(h: House) -> str:
    """The id of a response that runs in the background."""
    response = await h.post(PATH, input="Hi", background=True)
    assert response.status_code == 200, response.text
    return response.json()["id"]


async def get(h: House, id: str) -> Any:
    return checked((await h.client.get(f"{PATH}/{id}")).json())


async def told(h: House, id: str) -> Any:
    """The response at the end of its events, once they have come."""
    return whole((await h.client.get(f"{PATH}/{id}?stream=true")).content)


async def test_a_stop_fails_what_runs(path: Path) -> None:
    async with keeping(path, slow) as h:
        id = await begun(h)
    assert h.worker.cancelled == [0]
    async with keeping(path) as h:
        response = await get(h, id)
        assert response["status"] == "failed"
        assert "server was stopped" in response["error"]["message"]
        assert await told(h, id) == response


async def test_so_does_a_crash(path: Path) -> None:
    async with keeping(path, slow) as h:
        id = await begun(h)
        store = h.app.state.services.runs.store
        record = await store.get(id)
        assert record.running
    # As if nobody had had the time to say that it ended.
    async with keeping(path) as h:
        await h.app.state.services.runs.store.put(record)
    async with keeping(path) as h:
        response = await get(h, id)
        assert response["status"] == "failed"
        assert response["error"]["code"] == "server_error"
        again = await h.client.post(f"{PATH}/{id}/cancel")
        assert again.json() == response


async def test_a_failure(path: Path) -> None:
    async with keeping(path, slow) as h:
        id = await begun(h)
        h.worker.generations[0].push(Failed(0, WorkerDied("gone")))
        response = await told(h, id)
        assert response["status"] == "failed" and response["store"] is True
        assert response["error"] == {"code": "server_error", "message": "gone"}
        assert await get(h, id) == response


async def test_a_failure_that_nobody_foresaw(path: Path) -> None:
    async with keeping(path, slow) as h:
        id = await begun(h)
        # The worker never accepts a request twice.
        h.worker.generations[0].push(Accepted(0, 7))
        response = await told(h, id)
        assert response["status"] == "failed"
        assert "the log has the details" in response["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_refused_at_once_never_runs(path: Path, stream: bool) -> None:
    async with keeping(path, fail(WorkerDied("gone"))) as h:
        response = await h.post(PATH, input="Hi", background=True, stream=stream)
        assert response.status_code == 500
        assert await h.app.state.services.runs.store.running() == []


async def test_a_full_store_refuses_to_begin(path: Path) -> None:
    async with keeping(path, slow, budget=100) as h:
        response = await h.post(PATH, input="Hi", background=True)
        assert response.status_code == 500
        assert "the store holds 100" in error_of(response)["message"]
        assert h.worker.cancelled == [0]


async def test_an_answer_that_the_store_cannot_take_is_told_from_memory(path: Path) -> None:
    async with keeping(path, slow, budget=3000) as h:
        id = await begun(h)
        h.worker.generations[0].push(Delta(0, "x" * 5000, 1))
        h.worker.generations[0].push(Failed(0, WorkerDied("gone")))
        response = await told(h, id)
        assert response["status"] == "failed"
        assert await get(h, id) == response
        cancelled = await h.client.post(f"{PATH}/{id}/cancel")
        assert cancelled.status_code == 200


async def test_one_does_not_wait_for_the_other(path: Path) -> None:
    async with keeping(path, slow) as h:
        one, other = await begun(h), await begun(h)
        await h.client.post(f"{PATH}/{other}/cancel")
        assert (await get(h, one))["status"] == "in_progress"
        assert (await get(h, other))["status"] == "cancelled"
