"""GET /info and GET /health."""

from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from server import __version__
from server.api.default_model import NamedModel, default_model
from server.api.deps import AppServices, until_gone
from server.api.openai.schema import MAX_CHOICES, MAX_N, MAX_STOPS
from server.api.openapi import MODEL, Sent, gives, sent
from server.api.tgi.errors import TGI_ERRORS, TgiRoute

router = APIRouter(route_class=TgiRoute)


class ServedModel(Sent):
    """A model and the limits of its requests. What Corral has nothing to say about is null."""

    model_id: str
    model_sha: None = None
    model_pipeline_tag: Literal["text-generation"] = "text-generation"
    max_concurrent_requests: int
    max_best_of: int = MAX_N
    max_stop_sequences: int = MAX_STOPS
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int = 1
    max_client_batch_size: int = MAX_CHOICES
    router: Literal["corral"] = "corral"
    version: str = __version__
    sha: None = None
    docker_label: None = None


class Unhealthy(Sent):
    """Some model that is to be preloaded does not serve."""

    error: Literal["unhealthy"] = "unhealthy"
    error_type: Literal["healthcheck"] = "healthcheck"


class Healthy(Sent):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/info", responses=gives(ServedModel) | TGI_ERRORS)
async def info(request: Request, services: AppServices, query: NamedModel) -> Response:
    """The model that answers, as TGI tells of it; loaded if need be."""
    async with until_gone(request):
        worker = await services.worker(request, query.model or default_model(services.pool))
    n_ctx = worker.info.n_ctx
    told = ServedModel(
        model_id=worker.model,
        max_concurrent_requests=worker.info.n_slots + worker.config.engine.max_waiting,
        max_input_tokens=n_ctx - 1,
        max_total_tokens=n_ctx,
    )
    return sent(told)


@router.get("/health", responses=gives(Healthy) | TGI_ERRORS | {"5XX": {MODEL: Unhealthy}})
async def health(services: AppServices) -> JSONResponse:
    """Whether every preloaded model serves."""
    if services.pool.ready():
        return JSONResponse(Healthy().model_dump())
    return JSONResponse(Unhealthy().model_dump(), 503)
