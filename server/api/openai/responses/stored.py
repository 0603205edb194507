"""What is kept of a response: GET, DELETE, /cancel and /input_items of /responses/{id}."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from server.api.deps import AppServices, Services
from server.api.envelope import visit_of
from server.api.errors import Told
from server.api.openai.responses.events import ResponseEvent
from server.api.openai.responses.resource import DeletedResponse, ItemList, ResponseObject
from server.api.openai.responses.store import ResponseStore, not_stored
from server.api.openai.responses.writer import failed_at
from server.api.openapi import gives, sent, streams
from server.api.sse import EventStream
from server.api.url import PathPart, Query
from server.api.wire import Wire
from server.errors import InvalidRequest

MAX_PAGE = 100

router = APIRouter()

ResponseId = Annotated[str, Depends(PathPart("response_id"))]


class EventsQuery(Wire):
    """Whether the events are wanted, and from which one on."""

    stream: bool = False
    starting_after: int | None = Field(default=None, ge=0)


class ItemsQuery(Wire):
    """Which page of the items."""

    limit: int = Field(default=20, ge=1, le=MAX_PAGE)
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None


@router.get("/responses/{response_id}", responses=gives(ResponseObject) | streams(ResponseEvent))
async def get_response(
    request: Request,
    services: AppServices,
    response_id: ResponseId,
    query: Annotated[EventsQuery, Depends(Query(EventsQuery))],
) -> Response:
    """A response that was stored, or its events if it was made in the background."""
    if query.starting_after is not None and not query.stream:
        raise InvalidRequest(
            "starting_after: only allowed when stream is true", param="starting_after"
        )
    after = -1 if query.starting_after is None else query.starting_after
    run = services.runs.find(response_id)
    if run is not None:
        if query.stream:
            return followed(request, services, run.follow(after), lambda: len(run.frames), {})
        return _json(run.response)
    record = await _store(services, response_id).get(response_id)
    if not query.stream:
        return _json(record.body)
    if not record.events:
        raise InvalidRequest(
            f"stream: response {response_id} was not made in the background", param="stream"
        )
    told = _told_again(record.events[after + 1 :])
    return followed(request, services, told, lambda: len(record.events), {})


@router.delete("/responses/{response_id}", responses=gives(DeletedResponse))
async def delete_response(services: AppServices, response_id: ResponseId) -> Response:
    """Forget a response, which is cancelled if it still runs."""
    store = _store(services, response_id)
    await _cancel(services, response_id)
    await store.delete(response_id)
    return sent(DeletedResponse(id=response_id))


@router.post("/responses/{response_id}/cancel", responses=gives(ResponseObject))
async def cancel_response(services: AppServices, response_id: ResponseId) -> Response:
    """Cancel a response that runs in the background; one that has ended stays as it is."""
    store = _store(services, response_id)
    await _cancel(services, response_id)
    record = await store.get(response_id)
    if not json.loads(record.body)["background"]:
        raise InvalidRequest("Cannot cancel a synchronous response.")
    return _json(record.body)


@router.get("/responses/{response_id}/input_items", responses=gives(ItemList))
async def list_input_items(
    services: AppServices,
    response_id: ResponseId,
    query: Annotated[ItemsQuery, Depends(Query(ItemsQuery))],
) -> Response:
    """What a response was made from: the items of its request, and what was said before."""
    store = _store(services, response_id)
    record = await store.get(response_id)
    past = [item for before in await store.past(record) for item in before.items]
    items: list[Mapping[str, object]] = [*past, *json.loads(record.input)]
    if query.order == "desc":
        items.reverse()
    if query.after is not None:
        ids = [item["id"] for item in items]
        if query.after not in ids:
            raise InvalidRequest(
                f"after: no item of this response has id '{query.after}'", param="after"
            )
        items = items[ids.index(query.after) + 1 :]
    page = items[: query.limit]
    return sent(
        ItemList(
            data=page,
            first_id=str(page[0]["id"]) if page else "",
            last_id=str(page[-1]["id"]) if page else "",
            has_more=len(items) > query.limit,
        )
    )


def followed(
    request: Request,
    services: Services,
    events: AsyncGenerator[bytes],
    n_told: Callable[[], int],
    headers: Mapping[str, str],
) -> EventStream:
    """A stream whose end, or whose client's, changes nothing for the response."""

    def failure(answer: Told) -> bytes:
        return failed_at(n_told(), answer)

    ping_s = services.config.server.ping_s
    return EventStream(
        events, lambda: None, visit_of(request), ping_s, headers, done=b"", failure=failure
    )


async def _told_again(events: Sequence[bytes]) -> AsyncGenerator[bytes]:
    yield b"".join(events)


def _store(services: Services, id: str) -> ResponseStore:
    store = services.runs.store
    if store is None:
        raise not_stored(id)
    return store


async def _cancel(services: Services, id: str) -> None:
    run = services.runs.find(id)
    if run is not None:
        run.cancel()
        await run.completed()


def _json(body: bytes) -> Response:
    return Response(body, media_type=JSONResponse.media_type)
