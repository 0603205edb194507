"""POST /admin/reload, and SIGHUP: the configuration and the folders of models are read again."""

import asyncio
import logging
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

from fastapi import APIRouter
from starlette.responses import Response

from server.api.deps import AppServices, Services
from server.api.openapi import Sent, gives, sent
from server.config import ConfigError
from server.errors import InvalidRequest

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin")


class ReloadAnswer(Sent):
    """Ids of models, and settings that hold from the next start on."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    restart_needed: tuple[str, ...]


@router.post("/reload", responses=gives(ReloadAnswer))
async def reload_config(services: AppServices) -> Response:
    """Apply what has changed. Where the configuration is unusable, the old one stays."""
    try:
        told = await services.reload()
    except ConfigError as error:
        raise InvalidRequest(str(error)) from error
    answer = ReloadAnswer(
        added=told.added,
        changed=told.changed,
        removed=told.removed,
        restart_needed=told.restart_needed,
    )
    return sent(answer)


@contextmanager
def reloading_at_hangup(services: Services) -> Generator[None]:
    """While it is open, SIGHUP has the configuration read again; a mistake in it is logged."""
    if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    reloads = set[asyncio.Task[None]]()

    def begin() -> None:
        reloads.add(task := asyncio.create_task(_reload_or_log(services)))
        task.add_done_callback(reloads.discard)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, begin)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _reload_or_log(services: Services) -> None:
    try:
        await services.reload()
    except ConfigError as error:
        log.error("not reloaded, the configuration is unusable: %s", error)
