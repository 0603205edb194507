"""Which placement is chosen: by a table of machines, and what holds for all of them."""

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ByteSize

from server.engine_config import EngineConfig
from server.gguf import Header, Layer
from server.layout import Layout
from server.need import shares_of
from server.placement import Need, choose, least, place, placed, settle
from tests.test_estimate import MIXTRAL

GIB = 2**30
DENSE = replace(
    MIXTRAL, layers=tuple(layer._replace(experts=0) for layer in MIXTRAL.layers), n_ff=14336
)
CONFIG = EngineConfig(flash_attn="on", n_ctx=4096, n_slots=4)
RAM = Need(64 * GIB)


def machine(*gpus: float, ram: float = 64) -> Need:
    return Need(int(ram * GIB), tuple(int(gpu * GIB) for gpu in gpus))


def chosen(header: Header, free: Need, **changes: Any) -> tuple[int, int, int | None]:
    """Layers on the GPUs, layers with experts in RAM, cells of the pool."""
    placement = choose(header, CONFIG.model_copy(update=changes), free)
    return placement.n_gpu_layers, placement.n_cpu_moe, placement.layout.n_cells


@pytest.mark.parametrize(
    ("header", "free", "changes", "expected"),
    [
        (MIXTRAL, machine(), {}, (0, 0, None)),
        (MIXTRAL, machine(), {"n_gpu_layers": 9}, (0, 0, None)),
        (MIXTRAL, machine(0), {}, (0, 0, None)),
        (MIXTRAL, machine(80), {}, (33, 0, 4 * 4096)),
        (DENSE, machine(80), {}, (33, 0, 4 * 4096)),
        # The dense one leaves layers in RAM, the mixture experts.
        (DENSE, machine(24), {}, (30, 0, 7936)),
        (MIXTRAL, machine(24), {}, (33, 3, 5888)),
        (MIXTRAL, machine(24), {"n_cpu_moe": 0}, (30, 0, 7168)),
        (MIXTRAL, machine(24), {"n_cpu_moe": 8}, (33, 8, 4 * 4096)),
        (MIXTRAL, machine(24), {"n_cpu_moe": "all"}, (33, 32, 4 * 4096)),
        (MIXTRAL, machine(3), {}, (33, 32, 9216)),
        # Not even without any experts.
        (MIXTRAL, machine(1.8), {}, (1, 0, 4 * 4096)),
        (DENSE, machine(24), {"n_gpu_layers": 10}, (10, 0, 4 * 4096)),
        (DENSE, machine(24), {"n_gpu_layers": 99}, (33, 0, 4096)),
        (DENSE, machine(24), {"n_gpu_layers": "all"}, (33, 0, 4096)),
        (DENSE, machine(24), {"n_gpu_layers": 0}, (0, 0, None)),
        (DENSE, machine(24, 24), {}, (33, 0, 4 * 4096)),
        (DENSE, machine(24, 24), {"split_mode": "none"}, (30, 0, 7936)),
        (DENSE, machine(4, 24), {"split_mode": "none"}, (4, 0, 4 * 4096)),
        (DENSE, machine(4, 24), {"split_mode": "none", "main_gpu": 1}, (30, 0, 7936)),
        (DENSE, machine(24), {"split_mode": "none", "main_gpu": 1}, (0, 0, None)),
        (DENSE, machine(80), {"kv_layout": "split"}, (33, 0, None)),
        (DENSE, machine(80), {"n_cells": 6000}, (33, 0, 6000)),
        (DENSE, machine(80), {"kv_budget": ByteSize(GIB)}, (33, 0, 8192)),
        (DENSE, machine(80), {"kv_budget": ByteSize(0)}, (33, 0, 4096)),
        (DENSE, machine(ram=30), {}, (0, 0, None)),
        (DENSE, machine(ram=27), {}, (0, 0, 8991)),
    ],
)
def test_choose(
    header: Header,
    free: Need,
    changes: dict[str, Any],
    expected: tuple[int, int, int | None],
) -> None:
    assert chosen(header, free, **changes) == expected


def test_a_model_without_cells() -> None:
    bare = replace(DENSE, layers=tuple(layer._replace(k=0, v=0) for layer in DENSE.layers))
    assert chosen(bare, machine(80))[0] == 33
    assert chosen(bare, machine())[0] == 0


def test_any_context_can_be_planned() -> None:
    tracemalloc.start()
    config = EngineConfig(n_ctx=2**31 - 1, n_slots=256)
    placement = choose(MIXTRAL, config, machine(80))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not placement.need.within(machine(80))
    assert peak < 2**20


def test_where_nothing_fits_the_need_says_so() -> None:
    need = choose(MIXTRAL, CONFIG, machine(1, ram=2)).need
    assert not need.within(machine(1, ram=2))
    assert need.gpus[0] <= GIB


def test_less_ram_is_taken_where_layers_do_not_fit_into_it() -> None:
    # 20 GiB of GPU and 6 of RAM: there is room for all of it, if little lies in RAM.
    free = machine(24, ram=8)
    assert choose(DENSE, CONFIG, free).need.within(free)


def test_what_was_chosen_can_be_asked_for() -> None:
    for free in (machine(24), machine(24, 12), machine()):
        first = choose(MIXTRAL, CONFIG, free)
        config = settle(CONFIG, first)
        again = placed(MIXTRAL, config, free, first.n_gpu_layers, first.n_cpu_moe)
        assert again.need == first.need
        assert again.layout.n_cells == first.layout.n_cells
    assert settle(CONFIG, choose(MIXTRAL, CONFIG, machine(24, 12))).tensor_split == (
        24 * GIB,
        12 * GIB,
    )


@st.composite
def headers(draw: st.DrawFn) -> Header:
    n_layer = draw(st.integers(1, 40))
    weights = draw(st.integers(10**6, 2 * 10**9))
    share = draw(st.sampled_from((0.0, 0.5, 0.96)))
    k = draw(st.integers(0, 4096))
    return replace(
        MIXTRAL,
        layers=(Layer(weights, int(share * weights), k, k),) * n_layer,
        tied_bytes=draw(st.sampled_from((0, MIXTRAL.input_bytes))),
        largest_bytes=draw(st.integers(0, weights)),
    )


configs = st.builds(
    EngineConfig,
    n_ctx=st.integers(8, 40_000),
    n_slots=st.integers(1, 32),
    n_gpu_layers=st.sampled_from(("auto", "all", 0, 3, 20)),
    kv_layout=st.sampled_from(("auto", "unified", "split")),
    split_mode=st.sampled_from(("layer", "row", "none")),
    flash_attn=st.sampled_from(("on", "off")),
    tensor_split=st.sampled_from(((), (1.0, 3.0), (1.0,))),
)
bytes_of_gpus = st.lists(st.integers(0, 64 * GIB), max_size=3).map(tuple)
machines = st.builds(Need, st.integers(0, 200 * GIB), bytes_of_gpus)


@settings(max_examples=60, deadline=None)
@given(headers(), configs, machines)
def test_whenever_anything_fits_what_is_chosen_fits(
    header: Header, config: EngineConfig, free: Need
) -> None:
    smallest = least(header, config, free).need
    placement = choose(header, config, free)
    assert placement.need.within(free) == smallest.within(free)
    if config.n_gpu_layers == "auto":
        assert placement.need._replace(ram=0).within(free)


@settings(max_examples=40, deadline=None)
@given(headers(), configs, machines)
def test_the_account_is_that_of_place(header: Header, config: EngineConfig, free: Need) -> None:
    it = choose(header, config, free)
    shares = shares_of(config, free.gpus)
    args = (it.n_gpu_layers, it.layout, len(free.gpus), shares, it.n_cpu_moe)
    assert place(header, config, *args).total == it.need


@settings(max_examples=40, deadline=None)
@given(headers(), configs, st.integers(1, 64 * GIB), st.integers(1, 64 * GIB))
def test_more_vram_never_means_fewer_layers(
    header: Header, config: EngineConfig, vram: int, more: int
) -> None:
    some, plenty = (choose(header, config, Need(10**13, (n,))) for n in (vram, vram + more))
    on_gpu = (some.n_gpu_layers, -some.n_cpu_moe)
    assert on_gpu <= (plenty.n_gpu_layers, -plenty.n_cpu_moe)


@settings(max_examples=40, deadline=None)
@given(headers(), configs, st.integers(0, 40))
def test_every_layer_more_takes_vram_and_gives_ram(
    header: Header, config: EngineConfig, n: int
) -> None:
    n = 1 + n % header.n_layer
    layout = Layout(config.n_ctx or 1, None, "")
    shares = shares_of(config, (GIB,))
    fewer, more = (place(header, config, count, layout, 1, shares).total for count in (n, n + 1))
    assert fewer.ram >= more.ram
    # With the last one, no tensor has to be brought over any more.
    assert fewer.gpus[0] - header.largest_bytes <= more.gpus[0]


@settings(max_examples=20, deadline=None)
@given(headers(), configs)
def test_with_room_for_everything_all_of_it_is_on_the_gpu(
    header: Header, config: EngineConfig
) -> None:
    config = config.model_copy(update={"n_gpu_layers": "auto", "main_gpu": 0})
    placement = choose(header, config, Need(10**15, (10**15,)))
    assert (placement.n_gpu_layers, placement.n_cpu_moe) == (header.n_layer + 1, 0)
    if config.kv_layout != "split":
        assert placement.layout.n_cells == config.n_slots * (config.n_ctx or 0)
