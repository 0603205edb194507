"""The HTTP side of `corral serve`: uvicorn with the application."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from server.app import create_app
from server.config import Config
from server.pool.pool import ModelPool

STOP_S = 5
"""Seconds that running requests have to end when the server is told to stop."""


class HttpServer(uvicorn.Server):
    """Tells when it has started, and ends requests that outstay its stopping."""

    def __init__(
        self,
        config: Config,
        pool: ModelPool,
        reread: Callable[[], Config],
        announce: Callable[[], None],
    ):
        """Raises ConfigError as `create_app` does."""
        self._announce = announce
        self._pool = pool
        super().__init__(
            uvicorn.Config(
                create_app(config, pool, reread),
                access_log=False,
                log_config=None,
                # Closing the pool ends what still runs; this is for what does not run on a model.
                timeout_graceful_shutdown=2 * STOP_S,
                lifespan="on",
                ws="none",
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._pool.events.close()
        closing = asyncio.create_task(_close_later(self._pool))
        await super().shutdown(sockets)
        closing.cancel()


async def _close_later(pool: ModelPool) -> None:
    """Give running requests their time, then end them with an error that their clients see."""
    await asyncio.sleep(STOP_S)
    await pool.close()
