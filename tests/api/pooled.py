"""The real app over a real pool, whose workers are scripted processes, and a client of it."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from server.app import create_app
from server.config import Config, ConfigError, EngineConfig, ModelConfig, PoolConfig, ServerConfig
from server.pool.events import PoolEvent, StateChanged
from server.pool.footprints import Footprints
from server.pool.pool import ModelPool
from server.pool.spare import Spare

LIMIT_S = 60
"""Nothing here takes so long; a test that hangs fails instead."""

SMALL = EngineConfig(n_ctx=64, n_slots=2, n_batch=32, n_ubatch=32, n_threads=1)


@dataclass
class Pooled:
    """The app, its pool and a client. `config` is what the next reload reads, or its fault."""

    app: FastAPI
    pool: ModelPool
    client: httpx.AsyncClient
    gate: Path
    config: Config | ConfigError

    def config_with(self, models: Mapping[str, ModelConfig]) -> Config:
        """As it is now, with these models instead."""
        return self.pool.config.model_copy(update={"models": dict(models)})

    async def complete(self, model: str, prompt: str = "words", **body: object) -> httpx.Response:
        fields = {"model": model, "prompt": prompt, **body}
        return await self.client.post("/v1/completions", json=fields)

    async def order(self, what: str, **body: object) -> httpx.Response:
        return await self.client.post(f"/admin/models/{what}", json=body)

    async def states(self) -> dict[str, Any]:
        """What /admin/models says of each model."""
        answer = (await self.client.get("/admin/models")).json()
        return {model["id"]: model for model in answer["data"]}

    async def open_gate(self, fault: str = "") -> None:
        """Let the load that waits succeed, or fail."""
        await asyncio.to_thread(self.gate.write_text, fault)

    async def hang(self, model: str) -> asyncio.Task[httpx.Response]:
        """A request that runs until somebody ends it."""
        task = asyncio.create_task(self.complete(model, "hang"))
        while self.pool.loads().get(model) != (1, 0):
            assert not task.done(), task.result().text
            await asyncio.sleep(0)
        return task


def models(folder: Path, *ids: str, **settings: Any) -> dict[str, ModelConfig]:
    """One file each, which the scripted workers never open."""
    settings = {"engine": SMALL, "template": "chatml", **settings}
    return {id: ModelConfig(path=folder / f"{id}.gguf", **settings) for id in ids}


@asynccontextmanager
async def pooled(
    folder: Path,
    configured: Mapping[str, ModelConfig],
    *,
    gated: bool = False,
    pool: PoolConfig | None = None,
    **server: Any,
) -> AsyncGenerator[Pooled]:
    """`gated`: loads wait until the test opens the gate. `server`: settings of ServerConfig."""
    gate = folder / "gate"
    os.mkfifo(gate)
    scripted = ("tests.pool.scripted_worker", str(folder / "starts"), "serve")
    command = (
        sys.executable,
        "-m",
        *(("tests.api.gated_worker", str(gate)) if gated else scripted),
    )
    config = Config(
        server=ServerConfig(**server),
        pool=pool or PoolConfig(),
        models=dict(configured),
        hf_cache="off",
    )
    models = ModelPool(config, Spare(command), footprints=Footprints(None))

    def reread() -> Config:
        if isinstance(opened.config, ConfigError):
            raise opened.config
        return opened.config

    app = create_app(config, models, reread)
    transport = httpx.ASGITransport(app)
    async with (
        asyncio.timeout(LIMIT_S),
        httpx.AsyncClient(transport=transport, base_url="http://corral", timeout=None) as client,
    ):
        opened = Pooled(app, models, client, gate, config)
        async with app.router.lifespan_context(app):
            yield opened


async def until(pool: ModelPool, model: str, state: str) -> list[PoolEvent]:
    """Wait until the model is in that state; what happened on the way."""
    listener = pool.events.listen()
    seen: list[PoolEvent] = []
    try:
        while pool.residents[model].state != state:
            event = await listener.next()
            assert event is not None
            seen.append(event)
    finally:
        listener.close()
    return seen


async def until_told(pool: ModelPool, model: str, progress: float) -> None:
    """Wait until the load of the model has come so far."""
    listener = pool.events.listen()
    try:
        while pool.progress(model) != progress:
            event = await listener.next()
            assert isinstance(event, StateChanged)
    finally:
        listener.close()
