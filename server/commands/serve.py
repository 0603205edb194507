"""`corral serve`: from the command to the server's end.

Preloaded models are begun as soon as the configuration is read, and load while the HTTP side is
imported, which takes as long. Clients that come meanwhile wait.
"""

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING

import uvloop
from pydantic import BaseModel

from server import __version__
from server.commands.address import called
from server.commands.failure import CommandError
from server.config import Config, ConfigError
from server.pool.catalog import read_catalog
from server.pool.pool import ModelPool
from server.pool.spare import Spare

if TYPE_CHECKING:
    from server.commands.http import HttpServer

log = logging.getLogger("corral")

BACKLOG = 2048
"""Connections that may wait to be accepted; uvicorn's default."""

MOST_NAMED = 10
"""Models that are named when the server starts."""


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
    started = False

    def announce() -> None:
        nonlocal started
        started = True
        _announce(config, list(catalog.entries), listener)

    async def serve() -> None:
        pool = ModelPool(config, spare, catalog)
        await pool.start()
        try:
            # On a thread, so that the pool gets on with its loads.
            make = await asyncio.to_thread(_imported)
            await make(config, pool, read, announce).serve([listener])
        finally:
            await pool.close()

    with (
        _listen(config.server.host, config.server.port) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            runner.run(serve())
        except KeyboardInterrupt:
            log.info("stopped")
    return started


def _imported() -> "type[HttpServer]":
    """The HTTP side, after a third of a second."""
    _import_fastapi()
    from server.commands.http import HttpServer

    gc.freeze()
    gc.enable()
    return HttpServer


def _import_fastapi() -> None:
    """Its own models, of OpenAPI, are built when they are first used: that was a sixth of all."""
    BaseModel.model_config["defer_build"] = True
    try:
        import_module("fastapi")
    finally:
        del BaseModel.model_config["defer_build"]


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
