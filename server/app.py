"""create_app: builds and connects everything on the HTTP side."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from server import __version__
from server.api import ROUTERS, errors, openapi
from server.api.admin.reload import reloading_at_hangup
from server.api.body import BodyLimit
from server.api.deps import Services
from server.api.envelope import Envelope
from server.api.openai.responses.runs import Runs
from server.api.openai.responses.store import ResponseStore
from server.chat.format import chat_format
from server.config import Config
from server.errors import InvalidRequest
from server.metrics import Metrics
from server.pool.events import StateChanged
from server.pool.pool import ModelPool

log = logging.getLogger(__name__)

TELL_AFTER_S = 1.0
"""Seconds from a model's load to a look at its template, for those who waited come first."""


def create_app(
    config: Config, pool: ModelPool, reread: Callable[[], Config] | None = None
) -> FastAPI:
    """The ASGI application. Its lifespan starts and closes `pool`, and reloads it at SIGHUP.

    `reread` reads the configuration again. Raises ConfigError if the store cannot be opened.
    """
    path = config.server.store
    runs = Runs(None if path is None else ResponseStore(path, config.server.store_budget))

    metrics = Metrics(pool.loads)
    services = Services(pool, metrics, runs, reread)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await runs.start()
        telling = asyncio.create_task(_tell_templates(pool))
        await pool.start()
        try:
            with reloading_at_hangup(services):
                yield
        finally:
            telling.cancel()
            await runs.close()
            await pool.close()

    app = FastAPI(
        title="Corral",
        version=__version__,
        lifespan=lifespan,
        # A redirect loses the body in some clients.
        redirect_slashes=False,
    )
    app.state.services = services
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)
    openapi.document(app, ROUTERS, "/v1")
    errors.install(app)
    app.add_middleware(BodyLimit, limit=config.server.max_body)
    # The last one added is the outermost.
    app.add_middleware(Envelope, metrics=metrics)
    return app


async def _tell_templates(pool: ModelPool) -> None:
    """Log, of each model after it is loaded, what is wrong with its chat template."""

    def later(model: str) -> None:
        asyncio.get_running_loop().call_later(TELL_AFTER_S, _tell_template, pool, model)

    listener = pool.events.listen()
    for model in pool.loads():
        later(model)
    while (event := await listener.next()) is not None:
        if isinstance(event, StateChanged) and event.state == "ready":
            later(event.model)


def _tell_template(pool: ModelPool, model: str) -> None:
    worker = pool.serving(model)
    if worker is None or not worker.info.generates:
        return
    try:
        chat_format(worker.config, worker.info)
    except InvalidRequest as error:
        log.warning("%s: no chat: %s", model, error)
