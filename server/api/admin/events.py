"""GET /admin/events: what happens to the models, as SSE."""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.api.deps import AppServices
from server.api.envelope import visit_of
from server.api.sse import EventStream
from server.pool.events import Listener, PoolEvent, Reloaded, StateChanged

router = APIRouter(prefix="/admin", include_in_schema=False)


@router.get("/events")
async def events(request: Request, services: AppServices) -> Response:
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
            fields = {"type": "state", **asdict(event)}
        case Reloaded():
            fields = {"type": "reloaded", **asdict(event)}
    return f"data: {json.dumps(fields)}\n\n".encode()
