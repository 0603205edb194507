"""Which layers go to which memory: the choice among the ways that `need` can account for."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pydantic import ByteSize

from server import estimate as sizes
from server.engine_config import EngineConfig
from server.gguf import Header
from server.layout import PAD, Layout, choose_attention, choose_layout, has_amx
from server.need import Need, cpu_moe, place, shares_of

__all__ = ["Need", "Placement", "choose", "least", "place", "placed", "settle"]


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model would be loaded, and what it would take."""

    n_gpu_layers: int
    layout: Layout
    need: Need
    n_cpu_moe: int = 0
    """Layers, from the first, whose experts stay in RAM."""
    tensor_split: tuple[float, ...] = ()
    """The share of each of several GPUs that `need` is right for."""


def least(header: Header, config: EngineConfig, total: Need) -> Placement:
    """The way that takes the least, where `total` is all that there is: with the fewest cells.

    The first of all ways that fits, or else the one that takes the least RAM.
    """
    best: Placement | None = None
    best_rank = (True, 0)
    for n_layers, n_cpu_moe in _ways(header, config, len(total.gpus)):
        way = _with_fewest(header, config, total, n_layers, n_cpu_moe)
        if way.need.within(total):
            return way
        rank = (not way.need._replace(ram=0).within(total), way.need.ram)
        if best is None or rank < best_rank:
            best, best_rank = way, rank
    assert best is not None
    return best


def choose(header: Header, config: EngineConfig, free: Need) -> Placement:
    """How the model is loaded into what is free.

    Layers come first: as many on the GPUs as fit there with the cells of one whole context. Cells
    for more requests take what remains. `need` is more than `free` only where nothing fits.
    """
    return _with_cells(header, config, free, least(header, config, free))


def placed(
    header: Header, config: EngineConfig, free: Need, n_layers: int, n_cpu_moe: int
) -> Placement:
    """The same with the choice of layers made already."""
    return _with_cells(
        header, config, free, _with_fewest(header, config, free, n_layers, n_cpu_moe)
    )


def _ways(header: Header, config: EngineConfig, n_gpus: int) -> Iterator[tuple[int, int]]:
    """(offloaded layers, layers whose experts stay in RAM), the fastest way first.

    A mixture of experts that does not fit on the GPUs keeps experts in RAM, of as few layers as it
    takes, and has all else on the GPUs, rather than whole layers in RAM. A token needs all of a
    layer's attention but only a few of its experts, which are nearly all of its bytes: what stays
    is what a CPU reads least of, and cells, which are read whole, are where reading is fastest.
    Whoever sets `n_cpu_moe` has decided otherwise.
    """
    moe, most = cpu_moe(config, header.n_layer), header.n_layer + 1
    if n_gpus == 0 or (config.split_mode == "none" and config.main_gpu >= n_gpus):
        yield 0, moe
        return
    match config.n_gpu_layers:
        case "auto":
            yield most, moe
            if header.has_experts and "n_cpu_moe" not in config.model_fields_set:
                yield from ((most, n) for n in range(1, most))
            yield from ((n, moe) for n in range(most - 1, -1, -1))
        case "all":
            yield most, moe
        case n_layers:
            yield min(n_layers, most), moe


def _with_fewest(
    header: Header, config: EngineConfig, room: Need, n_layers: int, n_cpu_moe: int
) -> Placement:
    """With cells for one whole context, or as the settings say."""
    n_ctx = sizes.choose_n_ctx(config, header.n_ctx_train)
    per_cell = round(sizes.bytes_per_cell(header, config))
    sparing = config.model_copy(update={"kv_budget": ByteSize(0)})
    layout = _layout(sparing, n_ctx, per_cell, 0, on_gpu=n_layers > 0)
    shares = shares_of(config, room.gpus)
    need = place(header, config, n_layers, layout, len(shares), shares, n_cpu_moe).total
    return Placement(n_layers, layout, need, n_cpu_moe, shares if len(shares) > 1 else ())


def _with_cells(header: Header, config: EngineConfig, free: Need, way: Placement) -> Placement:
    """With cells for all requests, or for as many as fit. Half of the RAM that is left may go."""
    per_cell = round(sizes.bytes_per_cell(header, config))
    left = free.less(way.need)
    shares = shares_of(config, free.gpus)
    half = Need(way.need.ram + max(0, left.ram) // 2, free.gpus)
    room = half if config.kv_budget is None else free

    def make(layout: Layout) -> Placement:
        n_moe = way.n_cpu_moe
        parts = place(header, config, way.n_gpu_layers, layout, len(shares), shares, n_moe)
        return replace(way, layout=layout, need=parts.total)

    if way.n_gpu_layers == 0:
        n_free = max(0, left.ram) + (way.layout.n_cells or 0) * per_cell
        way_for_all = make(_layout(config, way.layout.n_ctx, per_cell, n_free, on_gpu=False))
        if way_for_all.need.within(free):
            return way_for_all
    if way.layout.n_cells is None or config.n_cells is not None or per_cell == 0:
        return way
    return _most_cells(config, way, per_cell, lambda n: make(replace(way.layout, n_cells=n)), room)


def _layout(config: EngineConfig, n_ctx: int, per_cell: int, n_free: int, on_gpu: bool) -> Layout:
    """The one that a worker would choose."""
    config = choose_attention(config, on_gpu, has_amx())
    return choose_layout(config, n_ctx, per_cell, n_free, on_gpu)


def _most_cells(
    config: EngineConfig,
    way: Placement,
    per_cell: int,
    make: Callable[[int], Placement],
    room: Need,
) -> Placement:
    """The largest pool within `room` that is of use, or that of `way`."""
    n_ctx = way.layout.n_ctx
    most = config.n_slots * n_ctx
    if config.kv_budget is not None:
        most = max(n_ctx, min(most, config.kv_budget // per_cell))
    # The last is `most`, or more. Not a list: contexts of billions have been asked for.
    counts = range(n_ctx, most + PAD, PAD)
    n_fitting = bisect_left(counts, True, key=lambda n: not make(min(n, most)).need.within(room))
    return make(min(counts[n_fitting - 1], most)) if n_fitting else way


def settle(config: EngineConfig, placement: Placement) -> EngineConfig:
    """The settings that make a worker load it like that and in no other way."""
    layout = placement.layout
    decided: dict[str, object] = {
        "n_ctx": layout.n_ctx,
        "n_gpu_layers": placement.n_gpu_layers,
        "kv_layout": layout.name,
        "n_cells": layout.n_cells,
        "n_cpu_moe": placement.n_cpu_moe,
    }
    if placement.tensor_split:
        decided["tensor_split"] = placement.tensor_split
    if placement.need.gpus and not placement.n_gpu_layers:
        # llama.cpp would compute prompts there.
        decided["devices"] = ("none",)
    return config.model_copy(update=decided)
