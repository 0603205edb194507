"""POST /admin/plan: what a model of the catalogue would take of each memory."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import ByteSize, ConfigDict, Field
from starlette.responses import JSONResponse

from server.api.body import Body, json_body
from server.api.deps import AppServices
from server.engine_config import KVQuant
from server.need import Need

router = APIRouter(prefix="/admin", include_in_schema=False)


class PlanRequest(Body):
    """The body."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="an id or any other name of the catalogue")
    ctx: int | None = Field(default=None, ge=8, le=2**31 - 1, description="tokens of one request")
    slots: int | None = Field(default=None, ge=1, le=256, description="requests at a time")
    kv_quant: KVQuant | None = Field(default=None, description="type of keys and values")
    gpu_free: tuple[Annotated[ByteSize, Field(ge=0)], ...] | None = Field(
        default=None, max_length=64, description="free bytes of each GPU; null: those of this one"
    )
    ram_free: Annotated[ByteSize, Field(ge=0)] | None = Field(
        default=None, description="free bytes of RAM; null: those of this machine"
    )


@router.post("/plan")
async def plan_model(
    services: AppServices, body: Annotated[PlanRequest, Depends(json_body(PlanRequest))]
) -> JSONResponse:
    """The figures of `corral plan`, in bytes."""
    return JSONResponse(await asyncio.to_thread(_figures, services, body))


def _figures(services: AppServices, body: PlanRequest) -> object:
    from server.pool import machine
    from server.pool.plan import Order, figures, plan

    ram, gpus = body.ram_free, body.gpu_free
    if ram is None or gpus is None:
        found = machine.free()
        ram, gpus = found.ram if ram is None else ram, found.gpus if gpus is None else gpus
    order = Order(body.ctx, body.slots, body.kv_quant)
    return figures(plan(services.pool.catalog, body.model, order, Need(ram, tuple(gpus))))
