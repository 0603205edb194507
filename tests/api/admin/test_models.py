"""GET /admin/models, and what can be ordered, over a real pool with scripted workers."""

import asyncio
import json
from pathlib import Path

import psutil
import pytest
from pydantic import ByteSize

from server.config import PoolConfig
from tests.api.pooled import models, pooled, until, until_told
from tests.api.scripted import Line, error_of

BUDGET = ByteSize(3 * 2**30)

STATES = {
    "id", "state", "pinned", "progress", "error", "fault", "path", "aliases", "quant", "memory",
    "lent", "resident", "n_slots", "n_running", "n_waiting", "n_queued", "idle_s",
}  # fmt: skip


async def test_what_is_told_of_each_model(tmp_path: Path) -> None:
    configured = models(tmp_path, "a", aliases=("first",)) | models(tmp_path, "b")
    async with pooled(tmp_path, configured, pool=PoolConfig(ram_budget=BUDGET)) as p:
        answer = (await p.client.get("/admin/models")).json()
        assert answer["object"] == "list"
        assert answer["budget"] == {"ram": BUDGET, "gpus": []}
        assert answer["taken"] == {"ram": 0, "gpus": []}
        assert [model["id"] for model in answer["data"]] == ["a", "b"]
        a = answer["data"][0]
        assert a.keys() == STATES
        assert (a["state"], a["pinned"], a["aliases"]) == ("unloaded", False, ["first"])
        assert a["path"] == str(tmp_path / "a.gguf")
        assert "No such file" in a["fault"]
        assert a["lent"] == {}
        unknown = ("progress", "error", "memory", "resident", "n_slots", "idle_s")
        assert [a[name] for name in unknown] == [None] * len(unknown)

        assert (await p.complete("a")).status_code == 200
        a = (await p.states())["a"]
        assert (a["state"], a["n_slots"], a["n_running"], a["n_waiting"]) == ("ready", 2, 0, 0)
        assert a["resident"] > 2**20
        assert 0 <= a["idle_s"] < 60
        assert set(a["memory"]) == {"ram", "gpus"}

        running = await p.hang("a")
        states = await p.states()
        assert (states["a"]["n_running"], states["b"]["state"]) == (1, "unloaded")
        running.cancel()


async def test_the_state_while_it_loads_and_after_it_has_failed(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m"), gated=True) as p:
        asking = asyncio.create_task(p.complete("m"))
        await until_told(p.pool, "m", 0.42)
        m = (await p.states())["m"]
        assert (m["state"], m["progress"], m["n_queued"]) == ("loading", 0.42, 1)
        await p.open_gate("m: bad magic")
        assert (await asking).status_code == 500
        m = (await p.states())["m"]
        assert (m["state"], m["error"], m["n_queued"]) == ("failed", "m: bad magic", 0)


async def test_load_and_unload(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m", aliases=("other",))) as p:
        answer = await p.order("load", model="other")
        assert answer.status_code == 200
        assert (answer.json()["id"], answer.json()["state"]) == ("m", "ready")
        pid = p.pool.residents["m"].pid
        # Again is no harm.
        assert (await p.order("load", model="m")).json()["state"] == "ready"
        assert p.pool.residents["m"].pid == pid
        answer = await p.order("unload", model="other")
        assert (answer.status_code, answer.json()["state"]) == (200, "unloaded")
        # It was waited for.
        assert pid is not None and not psutil.pid_exists(pid)
        assert (await p.order("unload", model="m")).json()["state"] == "unloaded"
        assert (await p.complete("m")).status_code == 200


async def test_a_load_that_takes_too_long(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m"), gated=True, load_wait_s=0.05) as p:
        slow = await p.order("load", model="m")
        assert slow.status_code == 503
        assert int(slow.headers["retry-after"]) >= 1
        # It goes on.
        assert (await p.states())["m"]["state"] == "loading"


async def test_a_load_that_fails_says_why(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m"), gated=True) as p:
        ordered = asyncio.create_task(p.order("load", model="m"))
        await p.open_gate("m: bad magic")
        assert error_of(await ordered)["message"] == "m: bad magic"


async def test_a_client_that_leaves_a_load(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m"), gated=True) as p:
        body = json.dumps({"model": "m"}).encode()
        line = Line(p.app, "/admin/models/load", body, [(b"content-type", b"application/json")])
        running = asyncio.create_task(line.run())
        await until_told(p.pool, "m", 0.42)
        line.hung_up.set()
        await running
        assert p.pool.residents["m"].n_waiters == 0


async def test_a_model_in_use_is_not_unloaded_unless_by_force(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m")) as p:
        running = await p.hang("m")
        refused = await p.order("unload", model="m")
        assert refused.status_code == 409
        assert error_of(refused)["code"] == "busy"
        assert error_of(refused)["type"] == "conflict_error"
        assert refused.headers["x-should-retry"] == "false"
        assert p.pool.loads() == {"m": (1, 0)}
        forced = await p.order("unload", model="m", force=True)
        assert (forced.status_code, forced.json()["state"]) == (200, "unloaded")
        answer = await running
        assert answer.status_code == 503
        assert "being unloaded" in error_of(answer)["message"]


async def test_keep_alive_of_a_load(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m")) as p:
        assert (await p.order("load", model="m", keep_alive="0s")).status_code == 200
        await until(p.pool, "m", "unloaded")
        assert (await p.order("load", model="m", keep_alive=-1)).status_code == 200
        assert p.pool.residents["m"].keep_alive_s == -1


async def test_pin(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "m"), pool=PoolConfig(idle_unload_s=0.001)) as p:
        pinned = await p.order("pin", model="m")
        assert (pinned.status_code, pinned.json()["pinned"]) == (200, True)
        assert (await p.complete("m")).status_code == 200
        resident = p.pool.residents["m"]
        assert (resident.state, resident.idle_timer) == ("ready", None)
        assert (await p.order("pin", model="m", pinned=False)).json()["pinned"] is False
        await until(p.pool, "m", "unloaded")


@pytest.mark.parametrize("what", ["load", "unload", "pin"])
async def test_orders_that_are_none(tmp_path: Path, what: str) -> None:
    async with pooled(tmp_path, models(tmp_path, "m")) as p:
        wrong: list[tuple[dict[str, object], str]] = [
            ({}, "model"),
            ({"model": ""}, "model"),
            ({"model": 5}, "model"),
            ({"model": "m", "wibble": 1}, "wibble"),
        ]
        for body, param in wrong:
            response = await p.order(what, **body)
            assert response.status_code == 400, response.text
            assert error_of(response)["param"] == param
        unknown = await p.order(what, model="nobody")
        assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")
        content = json.dumps({"model": "m"})
        page = await p.client.post(
            f"/admin/models/{what}", content=content, headers={"content-type": "text/plain"}
        )
        assert page.status_code == 400
        assert "application/json is wanted" in error_of(page)["message"]
        assert (await p.client.get(f"/admin/models/{what}")).status_code == 405
        assert p.pool.loads() == {}
        assert not p.pool.residents["m"].pinned


@pytest.mark.parametrize(
    ("what", "field", "value"), [("unload", "force", "perhaps"), ("pin", "pinned", [])]
)
async def test_fields_of_orders(tmp_path: Path, what: str, field: str, value: object) -> None:
    async with pooled(tmp_path, models(tmp_path, "m")) as p:
        response = await p.order(what, model="m", **{field: value})
    assert response.status_code == 400
    assert error_of(response)["param"] == field


@pytest.mark.parametrize("keep_alive", [True, "soon", [], {"s": 1}])
async def test_a_bad_keep_alive_of_a_load(tmp_path: Path, keep_alive: object) -> None:
    async with pooled(tmp_path, models(tmp_path, "m")) as p:
        response = await p.order("load", model="m", keep_alive=keep_alive)
    assert response.status_code == 400
    assert error_of(response)["param"] == "keep_alive"
