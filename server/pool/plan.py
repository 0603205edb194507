"""What a model takes for every number of offloaded layers, and which of its quants fits best."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ByteSize, TypeAdapter, ValidationError

from server.config import ModelConfig
from server.engine_config import EngineConfig, KVQuant
from server.errors import InvalidRequest, ModelLoadError
from server.estimate import choose_n_ctx
from server.gguf import Header, read_header
from server.layout import Layout
from server.need import Need, cpu_moe, place, shares_of
from server.placement import Placement, choose, least
from server.pool import machine, scan
from server.pool.catalog import Catalog, Entry
from server.pool.devices import Devices, find
from server.pool.names import family_of

Fit = Literal["all", "one", "no"]
"""Whether cells for all slots fit, those of one request, or not even these."""

Place = Literal["gpu", "memory", "none"]
"""Where a quant fits: on the GPUs alone, on them and in RAM together, or nowhere."""


class Column(NamedTuple):
    """A memory beside the RAM: a GPU of this machine, or a device that an RPC server lends."""

    name: str
    server: str | None
    """host:port; None: of this machine."""

    @property
    def title(self) -> str:
        """`GPU 0`, or `RPC0 of 10.0.0.2:50052`."""
        return self.name if self.server is None else f"{self.name} of {self.server}"


class Order(NamedTuple):
    """What to plan for; None is as the model's settings say."""

    n_ctx: int | None = None
    n_slots: int | None = None
    kv_quant: KVQuant | None = None

    def over(self, config: EngineConfig) -> EngineConfig:
        """The settings with that. A choice of layers that was made in them is left out."""
        given = {
            "n_ctx": self.n_ctx,
            "n_slots": self.n_slots,
            "kv_quant": self.kv_quant,
            "kv_quant_v": self.kv_quant,
        }
        update: dict[str, object] = {k: v for k, v in given.items() if v is not None}
        return config.model_copy(update={**update, "n_gpu_layers": "auto"})


class Row(NamedTuple):
    """One number of offloaded layers, with cells for all slots."""

    n_gpu_layers: int
    n_cpu_moe: int
    need: Need
    fit: Fit


class Quant(NamedTuple):
    """One of a family."""

    id: str
    quant: str
    size_bytes: int
    fits: Place


class Plan(NamedTuple):
    """All that can be said before a model is loaded. Bytes."""

    id: str
    path: Path
    config: EngineConfig
    """The model's settings with what was asked for."""
    n_layer: int
    n_ctx: int
    n_slots: int
    columns: tuple[Column, ...]
    """What the numbers of a Need's GPUs stand for."""
    free: Need
    rows: tuple[Row, ...]
    chosen: Placement
    """What `n_gpu_layers: auto` does."""
    quants: tuple[Quant, ...]
    """Of the same family, the largest first."""
    best: str | None
    """The largest of them that fits on the GPUs alone, or else at all."""


def read_bytes(text: str, param: str) -> tuple[int, ...]:
    """24GiB, or 24GiB,8GiB. Raises InvalidRequest."""
    try:
        sizes = TypeAdapter(tuple[ByteSize, ...]).validate_python(
            [part.strip() for part in text.split(",") if part.strip()]
        )
    except ValidationError:
        raise InvalidRequest(f"{param}: {text!r} is no size such as 24GiB", param) from None
    if any(size < 0 for size in sizes):
        raise InvalidRequest(f"{param}: {text!r} is negative", param)
    return sizes


def plan(
    catalog: Catalog, model: str, order: Order, free: Need, devices: Devices | None = None
) -> Plan:
    """The plan of a model of the catalogue, on these devices if it has some of its own.

    Raises ModelNotFound or ModelLoadError.
    """
    entry = catalog.entries[catalog.resolve(model)]
    family = [other for other in catalog.entries.values() if _is_kin(entry, other)]
    return plan_of(entry, family, order, free, devices)


async def room(
    engine: EngineConfig, ram: int | None, gpus: Sequence[int] | None
) -> tuple[Need, Devices | None]:
    """What was said to be free, and what is free where nothing was said.

    A model may have devices of its own, which are asked. Raises ModelLoadError where an RPC server
    does not answer, or there is no such device.
    """
    if gpus is None and engine.names_devices:
        devices = await find(engine)
        gpus = [device.free for device in devices.all]
        return Need(machine.ram() if ram is None else ram, tuple(gpus)), devices
    if ram is None or gpus is None:
        found = await asyncio.to_thread(machine.free)
        ram, gpus = found.ram if ram is None else ram, found.gpus if gpus is None else gpus
    return Need(ram, tuple(gpus)), None


def plan_file(path: Path, order: Order, free: Need) -> Plan:
    """The plan of a file that is in no catalogue, beside others in its folder."""
    entries = {
        found.parts[0].resolve(): _entry(found)
        for found in (scan.model_at(path), *scan.in_folder(path.parent))
        if found.parts[0].parent == path.parent
    }
    entry = entries[path.resolve()]
    return plan_of(entry, [e for e in entries.values() if _is_kin(entry, e)], order, free)


def _entry(found: scan.Found) -> Entry:
    path, header, fault = found.parts[0], None, found.fault
    if fault is None:
        try:
            header = read_header(path)
        except ModelLoadError as error:
            fault = error.message.removeprefix(f"{path}: ")
    return Entry(found.stem, ModelConfig(path=path), found, header, fault, configured=False)


def _is_kin(entry: Entry, other: Entry) -> bool:
    """Whether the two are quants of one model."""
    ours, theirs = entry.header, other.header
    return other is entry or (
        ours is not None
        and theirs is not None
        and family_of(entry.found.stem).lower() == family_of(other.found.stem).lower()
        and (ours.architecture, ours.n_layer, ours.n_embd)
        == (theirs.architecture, theirs.n_layer, theirs.n_embd)
    )


def plan_of(
    entry: Entry,
    family: Iterable[Entry],
    order: Order,
    free: Need,
    devices: Devices | None = None,
) -> Plan:
    """The plan of one model among its family. Raises ModelLoadError."""
    header = entry.header
    if header is None or entry.fault is not None or header.kind != "model":
        raise ModelLoadError(f"{entry.id}: {entry.fault or 'it is no model'}")
    config = order.over(entry.config.engine)
    quants = sorted(
        (_quant(other, other.header, order, free) for other in family if other.header),
        key=lambda quant: (-quant.size_bytes, quant.id),
    )
    fitting = [quant for place in ("gpu", "memory") for quant in quants if quant.fits == place]
    return Plan(
        id=entry.id,
        path=entry.found.parts[0],
        config=config,
        n_layer=header.n_layer,
        n_ctx=choose_n_ctx(config, header.n_ctx_train),
        n_slots=config.n_slots,
        columns=_columns(free, devices),
        free=free,
        rows=tuple(_rows(header, config, free)),
        chosen=choose(header, config, free),
        quants=tuple(quants),
        best=fitting[0].id if fitting else None,
    )


def _columns(free: Need, devices: Devices | None) -> tuple[Column, ...]:
    if devices is None:
        return tuple(Column(f"GPU {number}", None) for number in range(len(free.gpus)))
    return tuple(
        Column(device.name if device.number is None else f"GPU {device.number}", device.server)
        for device in devices.all
    )


def _quant(entry: Entry, header: Header, order: Order, free: Need) -> Quant:
    placement = choose(header, order.over(entry.config.engine), free)
    whole = placement.n_gpu_layers > header.n_layer and placement.n_cpu_moe == 0
    fits = placement.need.within(free)
    where: Place = "none" if not fits else "gpu" if whole else "memory"
    return Quant(entry.id, entry.quant, header.size_bytes, where)


def _rows(header: Header, config: EngineConfig, free: Need) -> Iterable[Row]:
    """Every number of layers; of a mixture of experts then everything with experts in RAM."""
    moe, most = cpu_moe(config, header.n_layer), header.n_layer + 1
    ways = [(n, moe) for n in range(most + 1 if free.gpus else 1)]
    if free.gpus and header.has_experts:
        ways += [(most, n) for n in range(moe + 1, most)]
    n_ctx = choose_n_ctx(config, header.n_ctx_train)
    layout = Layout(n_ctx, config.n_slots * n_ctx, "")
    shares = shares_of(config, free.gpus)
    for n_layers, n_moe in ways:
        need = place(header, config, n_layers, layout, len(shares), shares, n_moe).total
        yield Row(n_layers, n_moe, need, _fit(header, config, free, need, n_layers, n_moe))


def _fit(
    header: Header, config: EngineConfig, free: Need, need: Need, n_layers: int, n_moe: int
) -> Fit:
    if need.within(free):
        return "all"
    fixed = config.model_copy(update={"n_gpu_layers": n_layers, "n_cpu_moe": n_moe})
    return "one" if least(header, fixed, free).need.within(free) else "no"


def figures(plan: Plan) -> Mapping[str, object]:
    """The plan as JSON has it."""
    chosen = plan.chosen
    return {
        "model": plan.id,
        "n_layer": plan.n_layer,
        "n_ctx": plan.n_ctx,
        "n_slots": plan.n_slots,
        "devices": [{"name": column.name, "server": column.server} for column in plan.columns],
        "free": _bytes(plan.free),
        "rows": [
            {
                "n_gpu_layers": row.n_gpu_layers,
                "n_cpu_moe": row.n_cpu_moe,
                **_bytes(row.need),
                "fits": row.fit,
            }
            for row in plan.rows
        ],
        "auto": {
            "n_gpu_layers": chosen.n_gpu_layers,
            "n_cpu_moe": chosen.n_cpu_moe,
            "kv_layout": chosen.layout.name,
            "n_cells": chosen.layout.n_cells or plan.n_slots * plan.n_ctx,
            **_bytes(chosen.need),
            "fits": chosen.need.within(plan.free),
        },
        "quants": [
            {"id": q.id, "quant": q.quant, "size_bytes": q.size_bytes, "fits": q.fits}
            for q in plan.quants
        ],
        "best": plan.best,
    }


def _bytes(need: Need) -> dict[str, object]:
    return {"ram": need.ram, "gpus": list(need.gpus)}
