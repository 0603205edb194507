"""GET /admin/events: what happens to the models, as SSE."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from server.api.deps import AppServices
from server.api.envelope import visit_of
from server.api.openapi import Sent, streams
from server.api.sse import EventStream
from server.pool.events import Listener, PoolEvent, Reloaded, State, StateChanged

router = APIRouter(prefix="/admin")


class ModelChanged(Sent):
    """A model is in this state now, or further on in it."""

    type: Literal["state"] = "state"
    model: str
    state: State
    progress: float | None
    """Of a load, 0 to 1."""
    reason: str | None
    """Why it failed or was unloaded."""
    at: float
    """Seconds since 1970."""


class ConfigReloaded(Sent):
    """The configuration was read again: ids of models, and settings that wait for a restart."""

    type: Literal["reloaded"] = "reloaded"
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    restart_needed: tuple[str, ...]
    at: float
    """Seconds since 1970."""


AdminEvent = Annotated[ModelChanged | ConfigReloaded, Field(discriminator="type")]


@router.get("/events", response_class=Response, responses=streams(AdminEvent))
async def follow_events(request: Request, services: AppServices) -> Response:
    """First the state of each model that has one, then each change, until the server stops."""
    listener = services.pool.events.listen()
    known = [each.told for each in services.pool.residents.values() if each.told is not None]
    ping_s = services.config.server.ping_s
    written = _written(known, listener)
    return EventStream(written, listener.close, visit_of(request), ping_s, {})


async def _written(known: Sequence[PoolEvent], listener: Listener) -> AsyncGenerator[bytes]:
    for event in known:
        yield _event(event)
    while (event := await listener.next()) is not None:
        yield _event(event)


def _event(event: PoolEvent) -> bytes:
    match event:
        case StateChanged():
            told = ModelChanged.model_validate(asdict(event))
        case Reloaded():
            told = ConfigReloaded.model_validate(asdict(event))
    return f"data: {told.model_dump_json()}\n\n".encode()
