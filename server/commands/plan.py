"""`corral plan`: what a model would take, layer by layer, and what `auto` would do."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import cast, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.config import Config
from server.engine_config import EngineConfig, KVQuant
from server.errors import InvalidRequest
from server.placement import settle
from server.pool import machine
from server.pool.catalog import read_catalog
from server.pool.devices import find
from server.pool.dry_run import Size, dry_run
from server.pool.offers import shown
from server.pool.plan import Order, Plan, Row, figures, plan, plan_file, read_bytes, room

LONG = 6
"""Rows that are alike; of more, those in the middle are left out."""

FITS = {"all": "yes", "one": "with fewer cells", "no": ""}
PLACES = {"gpu": "on the GPU", "memory": "with RAM", "none": "nowhere"}


def order(n_ctx: int | None, n_slots: int | None, kv_quant: str | None) -> Order:
    """What was asked for on the command line. Raises InvalidRequest."""
    kinds = get_args(KVQuant)
    if kv_quant is not None and kv_quant not in kinds:
        raise InvalidRequest(f"--kv-quant {kv_quant}: one of {', '.join(kinds)}", "kv_quant")
    return Order(n_ctx, n_slots, cast("KVQuant | None", kv_quant))


@dataclass(frozen=True, slots=True)
class Said:
    """What was said to be free, in bytes; None: nothing was."""

    ram: int | None
    gpus: tuple[int, ...] | None


def free(gpu: str | None, ram: str | None) -> Said:
    """What was said on the command line. Raises InvalidRequest."""
    gpus = None if gpu is None else read_bytes(gpu, "--gpu-free")
    rams = None if ram is None else read_bytes(ram, "--ram-free")
    if rams is not None and len(rams) != 1:
        raise InvalidRequest(f"--ram-free {ram}: one size is wanted", "ram_free")
    return Said(None if rams is None else rams[0], gpus)


def of_file(path: Path, order: Order, said: Said) -> Plan:
    """The plan of a file. Raises CorralError."""
    free, _ = asyncio.run(room(EngineConfig(), said.ram, said.gpus))
    return plan_file(path, order, free)


def of_name(config: Config, model: str, order: Order, said: Said) -> Plan:
    """The plan of a model of the catalogue. Raises CorralError or ConfigError."""
    catalog = read_catalog(config)
    engine = catalog.models[catalog.resolve(model)].engine
    return plan(catalog, model, order, *asyncio.run(room(engine, said.ram, said.gpus)))


def run(
    plan: Plan, exact: bool, as_json: bool, plot: Path | None, say: Callable[[str], None]
) -> None:
    """Show a plan. Raises InvalidRequest where it cannot be drawn, EngineError from a dry run."""
    if plot is not None:
        draw_to(plot, plan)
    sizes = told(plan) if exact else []
    if as_json:
        of_llama = {"exact": [size._asdict() for size in sizes]} if exact else {}
        say(json.dumps({**figures(plan), **of_llama}, indent=2))
        return
    console = Console()
    # Nothing is cut off where the reader is another program.
    console.width = console.width if console.is_terminal else 200
    console.print(report(plan))
    console.print(f"\n{escape(conclusion(plan))}", highlight=False)
    if exact:
        listed = ", ".join(f"{s.device} {s.kind} {shown(s.n_bytes)}" for s in sizes)
        console.print(f"llama.cpp, beside the weights: {escape(listed)}", highlight=False)
    if len(plan.quants) > 1:
        console.print()
        console.print(family(plan))


def told(plan: Plan) -> list[Size]:
    """What llama.cpp says of `auto`. Raises InvalidRequest, EngineError."""
    if plan.config.rpc_servers:
        raise InvalidRequest("--exact knows the GPUs of this machine, not RPC servers", "exact")
    named = asyncio.run(find(plan.config)).all if plan.config.devices else None
    n_gpus = len(machine.free_gpus() if named is None else named)
    if len(plan.free.gpus) != n_gpus:
        raise InvalidRequest(
            f"--exact asks llama.cpp, which finds {n_gpus} GPUs here, not {len(plan.free.gpus)}",
            "exact",
        )
    chosen = plan.chosen
    config = settle(plan.config, chosen)
    return asyncio.run(dry_run(plan.path, config, chosen.n_gpu_layers, chosen.layout))


def draw_to(path: Path, plan: Plan) -> None:
    """Write the picture. Raises InvalidRequest if it cannot be."""
    if not find_spec("matplotlib"):
        raise InvalidRequest("a plot needs matplotlib: pip install 'corral[bench]'", "plot")
    if not path.resolve().parent.is_dir():
        raise InvalidRequest(f"{path.parent}: no such folder", "plot")
    from server.commands.plan_plot import draw

    draw(path, plan)


def report(plan: Plan) -> Table:
    """RAM and VRAM for each number of layers; where many rows are alike, the outer ones."""
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        title=f"{escape(plan.id)}: {plan.n_slots} x {plan.n_ctx:,} tokens",
        title_justify="left",
    )
    table.add_column("Layers on GPU", justify="right")
    if any(row.n_cpu_moe for row in plan.rows):
        table.add_column("Layers' experts in RAM", justify="right")
    table.add_column("RAM", justify="right")
    for column in plan.columns:
        table.add_column(escape(column.title), justify="right")
    table.add_column("Fits")
    table.add_column("")
    for row in _outer(plan):
        if row is None:
            table.add_row("...")
            continue
        cells = [str(row.n_gpu_layers)]
        if any(other.n_cpu_moe for other in plan.rows):
            cells.append(str(row.n_cpu_moe or ""))
        cells += [shown(row.need.ram), *map(shown, row.need.gpus), FITS[row.fit]]
        table.add_row(*cells, "<- auto" if _is_chosen(plan, row) else "")
    free = [shown(plan.free.ram), *map(shown, plan.free.gpus)]
    table.add_row("free", *[""] * (len(table.columns) - len(free) - 3), *free, style="bold")
    return table


def _is_chosen(plan: Plan, row: Row) -> bool:
    chosen = plan.chosen
    return (row.n_gpu_layers, row.n_cpu_moe) == (chosen.n_gpu_layers, chosen.n_cpu_moe)


def _outer(plan: Plan) -> Iterator[Row | None]:
    """The rows to show, None for those that are left out."""
    groups = groupby(plan.rows, key=lambda row: (row.n_cpu_moe > 0, row.fit, _is_chosen(plan, row)))
    for _, group in groups:
        rows = list(group)
        if len(rows) <= LONG:
            yield from rows
        else:
            yield from (*rows[:2], None, *rows[-2:])


def conclusion(plan: Plan) -> str:
    """What `auto` does, in a sentence."""
    it = plan.chosen
    n_cells = it.layout.n_cells or plan.n_slots * plan.n_ctx
    memories = [
        f"{shown(it.need.ram)} of RAM",
        *(f"{shown(n)} of {c.title}" for c, n in zip(plan.columns, it.need.gpus, strict=True)),
    ]
    experts = f", with the experts of {it.n_cpu_moe} in RAM" if it.n_cpu_moe else ""
    what = (
        f"auto: {it.n_gpu_layers} of {plan.n_layer + 1} layers on the GPU{experts}, "
        f"{n_cells:,} cells; it takes {', '.join(memories)}"
    )
    return what if it.need.within(plan.free) else f"{what}: that does not fit"


def family(plan: Plan) -> Table:
    """The quants, and which one is best."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Quant of the family", overflow="fold")
    table.add_column("Size", justify="right")
    table.add_column("Fits")
    table.add_column("")
    for quant in plan.quants:
        best = "<- best" if quant.id == plan.best else ""
        table.add_row(escape(quant.id), shown(quant.size_bytes), PLACES[quant.fits], best)
    return table
