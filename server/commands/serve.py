"""`corral serve`: the server from its socket to its end."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn
from fastapi import FastAPI

from server import __version__
from server.app import create_app
from server.commands.failure import CommandError
from server.commands.running import called
from server.config import Config, ConfigError
from server.pool.catalog import read_catalog
from server.pool.pool import ModelPool
from server.pool.spare import Spare

log = logging.getLogger("corral")

BACKLOG = 2048
"""Connections that may wait to be accepted."""

MOST_NAMED = 10
"""Models that are named when the server starts."""

STOP_S = 5
"""Seconds that running requests have to end when the server is told to stop."""


def run(read: Callable[[], Config], spare: Spare) -> bool:
    """Serve until a signal says to stop; whether it came to that.

    `read` reads the configuration, now and when it is to be read again; `spare` gives processes.
    Raises CommandError or ConfigError where it cannot begin.
    """
    config = read()
    _log_to_stderr(config.server.log_level)
    catalog = read_catalog(config)
    if not catalog.entries:
        raise ConfigError(
            "no models are configured and none were found; `corral config` prints an example"
        )
    with _listen(config.server.host, config.server.port) as listener:
        pool = ModelPool(config, spare, catalog)
        app = create_app(config, pool, read)
        server = _Server(app, pool, lambda: _announce(config, list(catalog.entries), listener))
        try:
            server.run([listener])
        except KeyboardInterrupt:
            log.info("stopped")
        return server.started


class _Server(uvicorn.Server):
    """Says where it is when it has started, and ends requests that outstay its stopping."""

    def __init__(self, app: FastAPI, pool: ModelPool, announce: Callable[[], None]):
        self._announce = announce
        self._pool = pool
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                # Closing the pool ends what still runs; this is for what does not run on a model.
                timeout_graceful_shutdown=2 * STOP_S,
                lifespan="on",
                backlog=BACKLOG,
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


def _log_to_stderr(level: str) -> None:
    """Our own log lines from `level` on; those of libraries from warnings on."""
    logging.basicConfig(
        level=logging.DEBUG if level == "debug" else logging.WARNING,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    for name in ("corral", "server"):
        logging.getLogger(name).setLevel(level.upper())


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises CommandError if there is none to be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as on_failure:
            listener = on_failure.enter_context(socket.socket(family, kind))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            on_failure.pop_all()
            return listener
    except OSError as error:
        raise CommandError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _announce(config: Config, models: list[str], listener: socket.socket) -> None:
    """Say where we serve, and how to try it."""
    host = called(config.server.host)
    port = listener.getsockname()[1]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    shown = ", ".join(models[:MOST_NAMED])
    more = f" and {len(models) - MOST_NAMED:,} more" if len(models) > MOST_NAMED else ""
    log.info("corral %s serves %s%s at %s", __version__, shown, more, url)
    log.info(
        "try: curl %s/chat/completions -H 'content-type: application/json' "
        '-d \'{"model": "%s", "messages": [{"role": "user", "content": "Hello"}]}\'',
        url,
        config.default_model or models[0],
    )
