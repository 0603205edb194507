"""POST /admin/models/pull: a model from the Hugging Face hub into its cache, with progress as SSE.

The pull belongs to its request: a client that leaves ends it, and the same request goes on from
there. Two requests for the same file: the second is refused.
"""

from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from server.api.admin.program import from_program
from server.api.body import Body, json_body
from server.api.deps import AppServices, Services, until_gone
from server.api.envelope import visit_of
from server.api.openapi import Sent, streams
from server.api.sse import EventStream
from server.pool.pulling import Pulling

if TYPE_CHECKING:  # imported by the thread that pulls
    from server.pool.hub import Hub
    from server.pool.offers import Choice
    from server.pool.pull import Progress, Pulled, Report

router = APIRouter(prefix="/admin")


class PullRequest(Body):
    """The body. Where files go is not for clients to say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str = Field(min_length=1, description="OWNER/NAME, or OWNER/NAME:QUANT")
    file: str | None = Field(
        default=None,
        min_length=1,
        description="a file, a pattern or :QUANT; null: the best quant for this machine",
    )
    revision: str = Field(default="main", min_length=1, description="branch, tag or commit")


class PullFile(Sent):
    """A file of the repository, and its bytes."""

    path: str
    size: int


class PullChoice(Sent):
    """What is fetched, and why that."""

    type: Literal["choice"] = "choice"
    reason: str
    files: list[PullFile]


class PullProgress(Sent):
    """How far it is: bytes of the file, and of all files."""

    type: Literal["progress"] = "progress"
    file: str
    file_done: int
    file_size: int
    done: int
    size: int


class PulledModel(Sent):
    """A model that is here. `path`: its file, or the first of its parts."""

    id: str
    path: str
    paths: list[str]


class PullDone(Sent):
    """All is here."""

    type: Literal["done"] = "done"
    models: list[PulledModel]


PullEvent = Annotated[PullChoice | PullProgress | PullDone, Field(discriminator="type")]


# Not async, it would take a detour through a thread.
async def the_hub() -> "Hub | None":
    """Where models come from; None: as the environment says."""
    return None


@router.post("/models/pull", response_class=Response, responses=streams(PullEvent))
async def pull_model(
    request: Request,
    services: AppServices,
    body: Annotated[PullRequest, Depends(json_body(PullRequest))],
    hub: Annotated[object, Depends(the_hub)],
) -> Response:
    """Fetch a model."""
    from_program(request)
    pulling = Pulling(lambda report: _pull(hub, body, report))
    try:
        async with until_gone(request):
            first = await pulling.next()
    except BaseException:
        pulling.close()
        raise
    events = _events(pulling, first, services)
    ping_s = services.config.server.ping_s
    return EventStream(events, pulling.close, visit_of(request), ping_s, {})


def _pull(hub: object, body: PullRequest, report: "Report") -> "list[Pulled]":
    """Runs on the pull's thread."""
    from server.pool import machine, pull
    from server.pool.hub import Hub

    order = pull.order_of(body.repo, body.file, None, body.revision)
    return pull.pull(hub if isinstance(hub, Hub) else Hub(), order, machine.room, report)


async def _events(
    pulling: Pulling, event: "Choice | Progress | list[Pulled]", services: Services
) -> AsyncGenerator[bytes]:
    while not isinstance(event, list):
        yield _written(event)
        event = await pulling.next()
    models = [
        PulledModel(id=p.offer.id, path=str(p.path), paths=[str(path) for path in p.paths])
        for p in event
    ]
    # So that it can be asked for at once.
    await services.rescan()
    yield _data(PullDone(models=models))


def _written(event: "Choice | Progress") -> bytes:
    from server.pool.offers import Choice

    if not isinstance(event, Choice):
        return _data(PullProgress.model_validate(asdict(event)))
    files = [PullFile(path=f.path, size=f.size) for offer in event.offers for f in offer.files]
    return _data(PullChoice(reason=event.reason, files=files))


def _data(event: BaseModel) -> bytes:
    return f"data: {event.model_dump_json()}\n\n".encode()
