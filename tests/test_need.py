"""What placements take, by tables of sizes."""

from dataclasses import replace
from typing import Any

import pytest

from server import estimate as sizes
from server.engine_config import EngineConfig
from server.layout import Layout
from server.need import GPU_BYTES, GPU_WORKER_BYTES, N_COPIES, Need, cpu_moe, place, shares_of
from tests.test_estimate import FLASH, MIXTRAL

LAYER = MIXTRAL.layers[0]
CELLS = Layout(4096, 4096, "")
LAYER_CELLS = 4096 * 4096
"""Bytes of 4,096 cells of one layer."""
BUFFER = sizes.layer_buffer(MIXTRAL, FLASH, 4096)
ALL = 33


def gpus(n_layers: int, shares: tuple[float, ...] = (1.0,), **settings: Any) -> tuple[int, ...]:
    config = FLASH.model_copy(update=settings)
    return place(MIXTRAL, config, n_layers, CELLS, len(shares), shares).total.gpus


def test_sums() -> None:
    one, other = Need(5, (1, 2)), Need(3, (4,))
    assert one.plus(other) == Need(8, (5, 2))
    assert one.less(other) == Need(2, (-3, 2))
    assert Need(1).within(Need(1))
    assert not Need(2).within(Need(1))
    assert not Need(0, (1,)).within(Need(1))
    assert not Need(0, (1, 2)).within(Need(9, (9, 1)))
    assert Need(0, (1,)).within(Need(0, (1, 1)))


def test_without_an_offloaded_layer_no_gpu_is_used() -> None:
    alone = place(MIXTRAL, FLASH, 20, CELLS, 0).total
    assert alone == Need(sizes.estimate(MIXTRAL, FLASH, 4096, FLASH.n_slots, 4096).total)
    assert place(MIXTRAL, FLASH, 0, CELLS, 2, (1, 1)).total == Need(alone.ram, (0, 0))


def test_split_cells_are_there_for_each_slot() -> None:
    pool, split = (place(MIXTRAL, FLASH, 0, Layout(4096, n, ""), 0).total.ram for n in (4096, None))
    assert split - pool == (FLASH.n_slots - 1) * 4096 * (128 * 1024 + sizes.CELL_BYTES)


def test_the_output_is_the_last_layer_and_the_first_to_go() -> None:
    logits = sizes.logits_buffer(MIXTRAL, FLASH)
    (one,) = gpus(1)
    assert one == GPU_BYTES + MIXTRAL.output_bytes + max(BUFFER, logits) + MIXTRAL.largest_bytes
    (two,) = gpus(2)
    assert two - one == LAYER.weights + LAYER_CELLS
    (everything,) = gpus(ALL)
    assert everything == one + 32 * (two - one) - MIXTRAL.largest_bytes
    assert gpus(9999) == gpus(ALL)


def test_a_tied_embedding_is_there_twice() -> None:
    tied = replace(MIXTRAL, tied_bytes=MIXTRAL.input_bytes)
    theirs, ours = (place(h, FLASH, ALL, CELLS, 1, (1,)).total for h in (MIXTRAL, tied))
    assert ours.less(theirs) == Need(0, (MIXTRAL.input_bytes,))


def test_what_stays_in_ram_when_everything_is_on_the_gpu() -> None:
    need = place(MIXTRAL, FLASH, ALL, CELLS, 1, (1,)).total
    inputs = sizes.mask_bytes(FLASH, 4096) + 4 * 512 * 4096
    assert need.ram == (
        sizes.worker_bytes(MIXTRAL)
        + GPU_WORKER_BYTES
        + MIXTRAL.input_bytes
        + 4096 * sizes.CELL_BYTES
        + sizes.output_buffer(MIXTRAL, sizes.output_rows(FLASH, FLASH.n_slots))
        + inputs
    )


def test_cells_that_are_kept_in_ram() -> None:
    (with_cells,), (without,) = gpus(9), gpus(9, offload_kqv=False, kv_offload=False)
    assert with_cells - without == 8 * LAYER_CELLS


@pytest.mark.parametrize(("wanted", "n"), [(0, 0), (5, 5), (99, 32), ("all", 32)])
def test_experts_in_ram(wanted: int | str, n: int) -> None:
    config = FLASH.model_copy(update={"n_cpu_moe": wanted})
    assert cpu_moe(config, 32) == n
    without = place(MIXTRAL, FLASH, ALL, CELLS, 1, (1,)).total
    need = place(MIXTRAL, config, ALL, CELLS, 1, (1,)).total
    assert place(MIXTRAL, FLASH, ALL, CELLS, 1, (1,), n).total == need
    brought = MIXTRAL.largest_bytes if n else 0
    assert need.gpus[0] - without.gpus[0] == brought - n * LAYER.experts
    assert need.ram - without.ram == n * LAYER.experts + (BUFFER if n else 0)


def test_experts_of_layers_that_are_in_ram_anyway() -> None:
    assert place(MIXTRAL, FLASH, 10, CELLS, 1, (1,), 23) == place(MIXTRAL, FLASH, 10, CELLS, 1)
    assert place(MIXTRAL, FLASH, 10, CELLS, 1, (1,), 24) != place(MIXTRAL, FLASH, 10, CELLS, 1)


def test_two_gpus_share_the_offloaded_layers_in_their_order() -> None:
    # Of 9, the first has the first 3, and a tensor's room; the last has the output.
    first, last = gpus(9, (1.0, 2.0))
    layers = LAYER.weights + LAYER_CELLS
    assert first == GPU_BYTES + 3 * layers + BUFFER + MIXTRAL.largest_bytes
    assert last == GPU_BYTES + 5 * layers + MIXTRAL.output_bytes + BUFFER


def test_two_gpus_that_hold_everything_are_a_pipeline() -> None:
    inputs = sizes.mask_bytes(FLASH, 4096) + 4 * 512 * 4096
    first, _ = gpus(ALL, (1.0, 1.0))
    layers = LAYER.weights + LAYER_CELLS
    assert first == GPU_BYTES + 17 * layers + BUFFER + (N_COPIES - 1) * inputs


def test_rows_are_shared_and_cells_are_not() -> None:
    by_layer, by_row = (gpus(ALL, (3.0, 1.0), split_mode=mode) for mode in ("layer", "row"))
    weights = 32 * LAYER.weights + MIXTRAL.output_bytes
    assert sum(by_row) < sum(by_layer)
    assert (
        by_row[1]
        == GPU_BYTES
        + round(weights / 4)
        + 8 * LAYER_CELLS
        + max(BUFFER, sizes.logits_buffer(MIXTRAL, FLASH))
        - LAYER_CELLS
    )


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, (8.0, 4.0)),
        ({"tensor_split": (3, 1)}, (3.0, 1.0)),
        ({"tensor_split": (3,)}, (3.0, 0.0)),
        ({"tensor_split": (1, 2, 3)}, (1.0, 2.0)),
        ({"tensor_split": (0, 0, 1)}, (8.0, 4.0)),
        ({"split_mode": "none", "main_gpu": 1, "tensor_split": (3, 1)}, (0.0, 1.0)),
    ],
)
def test_shares(settings: dict[str, Any], shares: tuple[float, ...]) -> None:
    assert shares_of(EngineConfig(**settings), (8, 4)) == shares


def test_shares_of_nothing_are_equal() -> None:
    assert shares_of(EngineConfig(), (0, 0)) == (1.0, 1.0)
    assert shares_of(EngineConfig(), ()) == ()
