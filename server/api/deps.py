"""What routes ask for: the app's services, and an end of waiting when the client has gone."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from server.api.envelope import visit_of
from server.api.errors import ClientGone
from server.api.openai.responses.runs import Runs
from server.config import Config
from server.metrics import Metrics
from server.pool.events import Reloaded
from server.pool.pool import ModelPool
from server.pool.worker import Worker

T = TypeVar("T")

INLINE_BYTES = 64 * 1024
"""What is no larger is read and written on the event loop."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the app was built from."""

    pool: ModelPool
    metrics: Metrics
    runs: Runs
    """Of responses: those in the background, and the store of all."""
    reread: Callable[[], Config] | None = None
    """Reads the configuration again. None: it comes from no file."""
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from the reading on, so that none undoes a later one."""

    @property
    def config(self) -> Config:
        """As it was last read."""
        return self.pool.config

    async def reload(self) -> Reloaded:
        """Read the configuration again and apply it. Raises ConfigError; then the old one stays."""
        if self.reread is None:
            return await self.rescan()
        async with self._reloading:
            return await self.pool.reload(await asyncio.to_thread(self.reread))

    async def rescan(self) -> Reloaded:
        """Look again which models there are, be it without the default one."""
        async with self._reloading:
            return await self.pool.reload(self.config)

    async def worker(
        self, request: Request, model: str, keep_alive_s: float | None = None
    ) -> Worker:
        """The worker of `model`, which the request holds until its end. Raises as the pool does."""
        visit = visit_of(request)
        # Only ids: what clients make up must not become a metric's label.
        visit.model = self.pool.resolve(model)
        # Who hears how the load goes on has all the time there is.
        wait_s = None if visit.hears else self.config.server.load_wait_s
        lease = await self.pool.lease(visit.model, wait_s, keep_alive_s)
        visit.leases.append(lease)
        return lease.worker


def services_of(request: Request) -> Services:
    """The services of the app that a request has come to."""
    return cast("Services", request.app.state.services)


# Not async, it would take a detour through a thread.
async def _services(request: Request) -> Services:
    return services_of(request)


AppServices = Annotated[Services, Depends(_services)]


async def aside(n_bytes: int, work: Callable[[], T]) -> T:
    """What `work` returns, done on a thread if it is about so much that streams would notice."""
    return await asyncio.to_thread(work) if n_bytes > INLINE_BYTES else work()


@asynccontextmanager
async def until_gone(request: Request) -> AsyncGenerator[None]:
    """Cancel the body of this `with` when the client hangs up, and raise ClientGone."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        # Somebody else may cancel the task too; that one counts more.
        if gone and task.uncancel() == 0:
            raise ClientGone("gone before its answer") from None
        raise
    finally:
        watcher.cancel()
