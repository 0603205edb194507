"""GET /healthz, /readyz and /metrics."""

from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from server.api.deps import AppServices
from server.api.openapi import Sent, gives, sent
from server.errors import Unavailable
from server.metrics import CONTENT_TYPE

router = APIRouter()


class Lives(Sent):
    """Always."""

    status: Literal["ok"] = "ok"


class IsReady(Sent):
    """Else it is a 503."""

    status: Literal["ready"] = "ready"


@router.get("/healthz", responses=gives(Lives))
async def healthz() -> Response:
    """The process lives."""
    return sent(Lives())


@router.get("/readyz", responses=gives(IsReady))
async def readyz(services: AppServices) -> Response:
    """Every model that is to be preloaded serves."""
    if not services.pool.ready():
        raise Unavailable("models are loading, or the server is stopping", retry_after=1.0)
    return sent(IsReady())


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(services: AppServices) -> Response:
    """Prometheus' text format."""
    return Response(services.metrics.exposition(), headers={"content-type": CONTENT_TYPE})
