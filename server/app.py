"""create_app: builds and connects everything on the HTTP side."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from server import __version__
from server.api import ROUTERS, errors
from server.api.body import BodyLimit
from server.api.deps import Services
from server.api.envelope import Envelope
from server.config import Config
from server.metrics import Metrics
from server.pool.pool import ModelPool


def create_app(config: Config, pool: ModelPool) -> FastAPI:
    """The ASGI application. Its lifespan starts and closes `pool`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await pool.start()
        try:
            yield
        finally:
            await pool.close()

    app = FastAPI(
        title="Corral",
        version=__version__,
        lifespan=lifespan,
        # A redirect loses the body in some clients.
        redirect_slashes=False,
    )
    metrics = Metrics(pool.loads)
    app.state.services = Services(config, pool, metrics)
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)
    errors.install(app)
    app.add_middleware(BodyLimit, limit=config.server.max_body)
    # The last one added is the outermost.
    app.add_middleware(Envelope, metrics=metrics)
    return app
