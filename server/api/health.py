"""GET /healthz, /readyz and /metrics."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from server.api.deps import AppServices
from server.errors import Unavailable
from server.metrics import CONTENT_TYPE

router = APIRouter()


@router.get("/healthz")
async def healthz() -> Response:
    """The process lives."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
async def readyz(services: AppServices) -> Response:
    """Every model that is to be preloaded serves."""
    if not services.pool.ready():
        raise Unavailable("models are loading, or the server is stopping", retry_after=1.0)
    return JSONResponse({"status": "ready"})


@router.get("/metrics")
async def metrics(services: AppServices) -> Response:
    """Prometheus' text format."""
    return Response(services.metrics.exposition(), headers={"content-type": CONTENT_TYPE})
