"""How many layers go to the GPU, by a table of sizes."""

from typing import Any

import pytest

from server.engine_config import EngineConfig
from server.offload import ALL, COMPUTE_BYTES, MARGIN, choose_gpu_layers

GIB = 2**30
N_LAYER = 9
WEIGHTS = 10 * GIB
"""A GiB for each layer and the output."""


def gpu(n_layers: float) -> int:
    """Free bytes of a GPU that holds so many layers of 1 GiB."""
    return int((n_layers * GIB + COMPUTE_BYTES) / MARGIN) + 1


@pytest.mark.parametrize(
    ("settings", "bytes_per_cell", "free", "n_layers"),
    [
        ({}, 0, [], 0),
        ({"n_gpu_layers": 5}, 0, [], 0),
        ({"n_gpu_layers": "all"}, 0, [], 0),
        ({"n_gpu_layers": 5}, 0, [1], 5),
        ({"n_gpu_layers": 0}, 0, [gpu(99)], 0),
        ({"n_gpu_layers": "all"}, 0, [1], ALL),
        ({}, 0, [gpu(99)], 10),
        ({}, 0, [gpu(10)], 10),
        ({}, 0, [gpu(9.9)], 9),
        ({}, 0, [gpu(0.9)], 0),
        ({}, 0, [COMPUTE_BYTES], 0),
        ({}, 0, [gpu(3), gpu(4)], 7),
        ({}, 0, [0, gpu(4)], 4),
        ({"split_mode": "none"}, 0, [gpu(3), gpu(4)], 3),
        ({"split_mode": "none", "main_gpu": 1}, 0, [gpu(3), gpu(4)], 4),
        ({"split_mode": "none", "main_gpu": 2}, 0, [gpu(3), gpu(4)], 0),
        ({"split_mode": "row", "main_gpu": 1}, 0, [gpu(3), gpu(4)], 7),
        # 2 slots x 1,024 cells of 5 MiB are 10 GiB: a layer with its cells takes 2.
        ({"n_ctx": 1024, "n_slots": 2}, 5 * 2**20, [gpu(10)], 5),
        ({"n_ctx_cap": 1024, "n_slots": 2}, 5 * 2**20, [gpu(10)], 5),
        ({"n_cells": 2048, "n_slots": 200}, 5 * 2**20, [gpu(10)], 5),
        ({"n_ctx": 1024, "n_slots": 2, "kv_offload": False}, 5 * 2**20, [gpu(10)], 10),
    ],
)
def test_choose_gpu_layers(
    settings: dict[str, Any], bytes_per_cell: int, free: list[int], n_layers: int
) -> None:
    config = EngineConfig(**settings)
    assert (
        choose_gpu_layers(
            config, config.n_ctx or config.n_ctx_cap, N_LAYER, WEIGHTS, bytes_per_cell, free
        )
        == n_layers
    )
