"""create_app: builds and connects everything on the HTTP side."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from server import __version__
from server.api import ROUTERS, errors, openapi
from server.api.body import BodyLimit
from server.api.deps import Services
from server.api.envelope import Envelope
from server.api.openai.responses.runs import Runs
from server.api.openai.responses.store import ResponseStore
from server.chat.format import chat_format
from server.config import Config
from server.errors import CorralError, InvalidRequest
from server.metrics import Metrics
from server.pool.pool import ModelPool

log = logging.getLogger(__name__)


def create_app(config: Config, pool: ModelPool) -> FastAPI:
    """The ASGI application. Its lifespan starts and closes `pool`.

    Raises ConfigError if the store cannot be opened.
    """
    path = config.server.store
    runs = Runs(None if path is None else ResponseStore(path, config.server.store_budget))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await runs.start()
        await pool.start()
        preloaded = [id for id, model in pool.models.items() if model.preload]
        telling = asyncio.gather(*(_tell_template(pool, id) for id in preloaded))
        try:
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
    metrics = Metrics(pool.loads)
    app.state.services = Services(config, pool, metrics, runs)
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)
    openapi.document(app, ROUTERS, "/v1")
    errors.install(app)
    app.add_middleware(BodyLimit, limit=config.server.max_body)
    # The last one added is the outermost.
    app.add_middleware(Envelope, metrics=metrics)
    return app


async def _tell_template(pool: ModelPool, id: str) -> None:
    """Log which template a model has once it is loaded. Others are told of when first asked."""
    with suppress(CorralError):
        worker = await pool.worker(id)
        if not worker.info.generates:
            return
        try:
            chat_format(worker.config, worker.info)
        except InvalidRequest as error:
            log.warning("%s: no chat: %s", id, error)
