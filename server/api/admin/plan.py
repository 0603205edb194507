"""POST /admin/plan: what a model of the catalogue would take of each memory."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import ByteSize, ConfigDict, Field
from starlette.responses import JSONResponse

from server.api.admin.models import Memory
from server.api.body import Body, json_body
from server.api.deps import AppServices
from server.api.openapi import Sent, gives
from server.engine_config import KVQuant
from server.pool.plan import Fit, Order, Place, figures, plan, room

router = APIRouter(prefix="/admin")


class PlanRequest(Body):
    """The body."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="an id or any other name of the catalogue")
    ctx: int | None = Field(default=None, ge=8, le=2**31 - 1, description="tokens of one request")
    slots: int | None = Field(default=None, ge=1, le=256, description="requests at a time")
    kv_quant: KVQuant | None = Field(default=None, description="type of keys and values")
    gpu_free: tuple[Annotated[ByteSize, Field(ge=0)], ...] | None = Field(
        default=None,
        max_length=64,
        description="free bytes of each GPU; null: those of this machine, or of the model's "
        "RPC servers",
    )
    ram_free: Annotated[ByteSize, Field(ge=0)] | None = Field(
        default=None, description="free bytes of RAM; null: those of this machine"
    )


class PlannedWay(Memory):
    """A way to place the model, and what it takes, in bytes."""

    n_gpu_layers: int
    n_cpu_moe: int
    """Layers whose experts stay in RAM."""


class PlannedRow(PlannedWay):
    """Whether cells for all slots fit with it, those of one request, or not even these."""

    fits: Fit


class PlannedAuto(PlannedWay):
    """What `n_gpu_layers: auto` would do."""

    kv_layout: str
    n_cells: int
    fits: bool


class PlannedDevice(Sent):
    """What one of the `gpus` is."""

    name: str
    server: str | None
    """The RPC server that lends it; null: it is in this machine."""


class PlannedQuant(Sent):
    """A quant of the same family, and where it fits."""

    id: str
    quant: str
    size_bytes: int
    fits: Place


class PlanAnswer(Sent):
    """What `corral plan` says."""

    model: str
    n_layer: int
    n_ctx: int
    n_slots: int
    devices: list[PlannedDevice]
    """One for each of `gpus`, in their order."""
    free: Memory
    rows: list[PlannedRow]
    auto: PlannedAuto
    quants: list[PlannedQuant]
    best: str | None
    """The id of the largest that fits on the GPUs alone, or else at all."""


@router.post("/plan", responses=gives(PlanAnswer))
async def plan_model(
    services: AppServices, body: Annotated[PlanRequest, Depends(json_body(PlanRequest))]
) -> JSONResponse:
    """The figures of `corral plan`, in bytes."""
    catalog = services.pool.catalog
    id = catalog.resolve(body.model)
    known = services.pool.devices(id) if body.gpu_free is None else None
    gpus = body.gpu_free if known is None else [device.free for device in known.all]
    free, devices = await room(catalog.models[id].engine, body.ram_free, gpus)
    order = Order(body.ctx, body.slots, body.kv_quant)

    def planned() -> object:
        return figures(plan(catalog, id, order, free, devices or known))

    return JSONResponse(await asyncio.to_thread(planned))
