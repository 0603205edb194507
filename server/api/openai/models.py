"""GET /v1/models and /v1/models/{id}."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from server.api.deps import AppServices
from server.api.envelope import visit_of
from server.errors import ModelNotFound

router = APIRouter()


class Model(BaseModel):
    """One configured model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "corral"


class ModelList(BaseModel):
    """All configured models."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models")
async def list_models(services: AppServices) -> ModelList:
    """The configured models, in the order of the configuration."""
    pool = services.pool
    return ModelList(data=[Model(id=id, created=pool.created(id)) for id in pool.models])


@router.get("/models/{id:path}")
async def get_model(id: str, request: Request, services: AppServices) -> Model:
    """One model; its id may have slashes."""
    if id not in services.pool.models:
        raise ModelNotFound(f"the model {id!r} does not exist", param="model")
    visit_of(request).model = id
    return Model(id=id, created=services.pool.created(id))
