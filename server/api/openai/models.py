"""GET /v1/models and /v1/models/{id}."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.api.deps import AppServices
from server.api.envelope import visit_of
from server.api.openapi import gives, sent
from server.api.url import PathPart
from server.api.wire import Wire

router = APIRouter()


class Model(Wire):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "corral"


class ModelList(Wire):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models", responses=gives(ModelList))
async def list_models(services: AppServices) -> Response:
    """The models, configured ones first and in the order of the configuration.

    Found files that cannot be loaded are left out.
    """
    pool = services.pool
    offered = [id for id, entry in pool.catalog.entries.items() if entry.offered]
    return sent(ModelList(data=[Model(id=id, created=pool.created(id)) for id in offered]))


@router.get("/models/{id:path}", responses=gives(Model))
async def get_model(
    id: Annotated[str, Depends(PathPart("id"))], request: Request, services: AppServices
) -> Response:
    """One model by its id, which may have slashes, or by any other name that it answers to."""
    id = services.pool.resolve(id)
    visit_of(request).model = id
    return sent(Model(id=id, created=services.pool.created(id)))
