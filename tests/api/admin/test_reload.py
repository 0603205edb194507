"""POST /admin/reload, and SIGHUP, over a real pool with scripted workers."""

import asyncio
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from server.api.admin.reload import reloading_at_hangup
from server.api.deps import Services
from server.config import Config, ConfigError, ServerConfig
from server.pool.events import Reloaded
from tests.api.pooled import SMALL, Pooled, models, pooled
from tests.api.scripted import build, error_of

MESSAGES = [{"role": "user", "content": "Hi"}]


async def reload(p: Pooled) -> dict[str, list[str]]:
    response = await p.client.post("/admin/reload")
    assert response.status_code == 200, response.text
    return response.json()


def diff(**told: list[str]) -> dict[str, list[str]]:
    return {"added": [], "changed": [], "removed": [], "restart_needed": [], **told}


def pid(p: Pooled, model: str) -> int:
    found = p.pool.residents[model].pid
    assert found is not None
    return found


async def test_only_what_is_different_restarts(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "a", "b", "c")) as p:
        for model in ("a", "b", "c"):
            assert (await p.complete(model)).status_code == 200
        before = {model: pid(p, model) for model in ("a", "b", "c")}
        assert await reload(p) == diff()
        changed = models(tmp_path, "b", engine=SMALL.model_copy(update={"n_slots": 1}))
        p.config = p.config_with(models(tmp_path, "a", "d") | changed)
        assert await reload(p) == diff(added=["d"], changed=["b"], removed=["c"])
        assert (await p.complete("c")).status_code == 404
        assert (await p.complete("d")).status_code == 200
        assert (await p.complete("b")).status_code == 200
        assert pid(p, "a") == before["a"]
        assert pid(p, "b") != before["b"]
        listed = (await p.client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == ["a", "d", "b"]


async def test_running_requests_of_a_removed_model_go_on(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "a", "b")) as p:
        running = await p.hang("b")
        p.config = p.config_with(models(tmp_path, "a"))
        assert await reload(p) == diff(removed=["b"])
        assert p.pool.loads() == {"b": (1, 0)}
        assert not running.done()
        running.cancel()


async def test_an_unusable_configuration_changes_nothing(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "a")) as p:
        assert (await p.complete("a")).status_code == 200
        before = pid(p, "a")
        p.config = ConfigError("config.yaml: unknown key modles")
        refused = await p.client.post("/admin/reload")
        assert refused.status_code == 400
        assert error_of(refused)["message"] == "config.yaml: unknown key modles"
        # A default that does not exist is found by the catalogue only.
        p.config = p.config_with(models(tmp_path, "b")).model_copy(
            update={"default_model": "nobody"}
        )
        refused = await p.client.post("/admin/reload")
        assert refused.status_code == 400
        assert "default_model: the model 'nobody' does not exist" in error_of(refused)["message"]
        assert (await p.complete("a")).status_code == 200
        assert pid(p, "a") == before
        assert [*p.pool.models] == ["a"]


async def test_a_default_model_whose_file_has_gone(tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    (folder / "b.gguf").write_bytes(b"no model, but a file")
    async with pooled(tmp_path, models(tmp_path, "a")) as p:
        p.config = p.config_with(models(tmp_path, "a")).model_copy(
            update={"models_dir": (folder,), "default_model": "b"}
        )
        assert await reload(p) == diff(added=["b"])
        (folder / "b.gguf").rename(folder / "c.gguf")
        services: Services = p.app.state.services
        told = await services.rescan()
        assert (told.added, told.removed) == (("c",), ("b",))
        for path, body in (
            ("/v1/completions", {"prompt": "Hi"}),
            ("/generate_stream", {"inputs": "Hi"}),
            ("/v1/tokenize", {"prompt": "Hi"}),
            ("/v1/responses/input_tokens", {"input": "Hi"}),
            ("/v1/chat/completions", {"model": "tgi", "messages": MESSAGES}),
        ):
            response = await p.client.post(path, json=body)
            assert response.status_code == 404, path
            assert "default_model: the model 'b' does not exist; known: a, c" in response.text
        error = error_of(await p.client.post("/v1/completions", json={"prompt": "Hi"}))
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert (await p.complete("a")).status_code == 200
        # Who has it read again is told of what is wrong with it.
        p.config = p.config.model_copy()
        refused = error_of(await p.client.post("/admin/reload"))
        assert "default_model: the model 'b' does not exist" in refused["message"]


async def test_settings_of_the_server(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "a")) as p:
        config = p.config_with(models(tmp_path, "a"))
        server = ServerConfig(port=9, log_level="debug", unknown_fields="strict")
        p.config = config.model_copy(update={"server": server, "default_model": "a"})
        assert await reload(p) == diff(restart_needed=["server.port", "server.log_level"])
        # The others hold at once.
        assert (await p.complete("a", wibble=1)).status_code == 400
        assert (await p.client.post("/v1/completions", json={"prompt": "Hi"})).status_code == 200


async def test_two_at_once_end_with_what_was_read_last(tmp_path: Path) -> None:
    async with pooled(tmp_path, models(tmp_path, "a")) as p:
        services: Services = p.app.state.services
        held, go_on = threading.Event(), threading.Event()
        later = p.config_with(models(tmp_path, "a", "b"))

        def slow() -> Config:
            held.set()
            go_on.wait()
            return p.config_with(models(tmp_path, "a"))

        first = asyncio.create_task(replace(services, reread=slow).reload())
        await asyncio.to_thread(held.wait)
        p.config = later
        second = asyncio.create_task(services.reload())
        for _ in range(20):
            await asyncio.to_thread(os.sched_yield)
        go_on.set()
        assert (await first).added == ()
        assert (await second).added == ("b",)
        # So does one that only looks for files.
        await services.rescan()
        assert [*p.pool.models] == ["a", "b"]


async def test_without_a_file_only_folders_are_read_again() -> None:
    app, pool = build()
    services: Services = app.state.services
    assert services.reread is None
    assert isinstance(await services.reload(), Reloaded)
    assert services.config is pool.config


async def test_a_hangup_reloads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pooled(tmp_path, models(tmp_path, "a")) as p:
        listener = p.pool.events.listen()
        p.config = ConfigError("config.yaml: unknown key modles")
        os.kill(os.getpid(), signal.SIGHUP)
        while "unknown key modles" not in caplog.text:
            await asyncio.sleep(0)
        assert "not reloaded, the configuration is unusable" in caplog.text
        p.config = p.config_with(models(tmp_path, "a", "b"))
        os.kill(os.getpid(), signal.SIGHUP)
        event = await listener.next()
        assert isinstance(event, Reloaded)
        assert event.added == ("b",)
        listener.close()
    # Afterwards it means to us what it meant before.
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


async def test_no_signal_is_heard_beside_the_main_thread() -> None:
    app, _ = build()

    def elsewhere() -> None:
        with reloading_at_hangup(app.state.services):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL

    await asyncio.to_thread(elsewhere)
