"""GET /admin/models, and POST /admin/models/load, /unload and /pin."""

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from server.api.admin.program import from_program
from server.api.body import Body, json_body
from server.api.deps import AppServices, Services, until_gone
from server.api.keep_alive import read_keep_alive
from server.api.openapi import Sent, gives, sent
from server.need import Need
from server.pool.events import State
from server.pool.memory import resident_bytes
from server.pool.resident import Resident

router = APIRouter(prefix="/admin")


class Memory(Sent):
    """Bytes of RAM and of each GPU."""

    ram: int
    gpus: tuple[int, ...]


class ModelState(Sent):
    """One model and what it does. Counts are of requests, times in seconds."""

    id: str
    state: State
    pinned: bool
    progress: float | None
    """Of its load, 0 to 1."""
    error: str | None
    """Why the last load failed."""
    fault: str | None
    """Why its file cannot be read."""
    path: str
    aliases: tuple[str, ...]
    quant: str
    memory: Memory | None
    """What is set aside for it while it is loaded."""
    lent: dict[str, int]
    """Bytes of it that lie with RPC servers, by host:port."""
    resident: int | None
    """Bytes of RAM that its process has now, pages of its file among them."""
    n_slots: int | None
    n_running: int
    n_waiting: int
    """For a slot."""
    n_queued: int
    """For the model to be loaded."""
    idle_s: float | None
    """Since its last request."""


class ModelStates(Sent):
    """All models, and the memory that they share."""

    object: Literal["list"] = "list"
    budget: Memory
    taken: Memory
    data: list[ModelState]


class ModelOrder(Body):
    """A body that names a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)


class LoadOrder(ModelOrder):
    """`keep_alive` as in requests for answers."""

    keep_alive: object = None


class UnloadOrder(ModelOrder):
    """By `force` running requests end with an error; without it they are a reason to refuse."""

    force: bool = False


class PinOrder(ModelOrder):
    """A pinned model never makes room for another."""

    pinned: bool = True


@router.get("/models", responses=gives(ModelStates))
async def list_model_states(services: AppServices) -> Response:
    """The models as they are now."""
    budget, taken = services.pool.budget()
    data = [_state(each) for each in services.pool.residents.values()]
    return sent(ModelStates(budget=_memory(budget), taken=_memory(taken), data=data))


@router.post("/models/load", responses=gives(ModelState))
async def load_model(
    request: Request,
    services: AppServices,
    body: Annotated[LoadOrder, Depends(json_body(LoadOrder))],
) -> Response:
    """Load a model, and wait for it as a request would."""
    from_program(request)
    keep_alive_s = read_keep_alive({"keep_alive": body.keep_alive})
    async with until_gone(request):
        worker = await services.worker(request, body.model, keep_alive_s)
    return sent(_state(services.pool.residents[worker.model]))


@router.post("/models/unload", responses=gives(ModelState))
async def unload_model(
    request: Request,
    services: AppServices,
    body: Annotated[UnloadOrder, Depends(json_body(UnloadOrder))],
) -> Response:
    """Unload a model, and wait until its memory is free."""
    from_program(request)
    await services.pool.unload(body.model, body.force)
    return sent(_now(services, body.model))


@router.post("/models/pin", responses=gives(ModelState))
async def pin_model(
    request: Request,
    services: AppServices,
    body: Annotated[PinOrder, Depends(json_body(PinOrder))],
) -> Response:
    """Pin a model, or unpin it, until the configuration is read again."""
    from_program(request)
    services.pool.pin(body.model, body.pinned)
    return sent(_now(services, body.model))


def _now(services: Services, model: str) -> ModelState:
    return _state(services.pool.residents[services.pool.resolve(model)])


def _memory(need: Need) -> Memory:
    return Memory(ram=need.ram, gpus=need.gpus)


def _state(resident: Resident) -> ModelState:
    entry, keeper = resident.entry, resident.keeper
    worker = None if keeper is None else keeper.serving
    return ModelState(
        id=entry.id,
        state=resident.state,
        pinned=resident.pinned,
        progress=resident.progress,
        error=None if resident.error is None else resident.error.message,
        fault=entry.fault,
        path=str(entry.config.path),
        aliases=entry.config.aliases,
        quant=entry.quant,
        memory=None if resident.claim is None else _memory(resident.claim.need),
        lent={} if resident.claim is None else dict(resident.claim.lent),
        resident=None if resident.pid is None else resident_bytes(resident.pid),
        n_slots=None if worker is None else worker.info.n_slots,
        n_running=0 if worker is None else worker.n_running,
        n_waiting=0 if worker is None else worker.n_waiting,
        n_queued=resident.n_waiters,
        idle_s=time.monotonic() - resident.last_used if resident.last_used else None,
    )
