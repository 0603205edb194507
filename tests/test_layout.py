"""Layout, context and flash attention by tables of sizes."""

from typing import Any

import pytest
from pydantic import ByteSize

from server.engine_config import EngineConfig
from server.layout import (
    Layout,
    choose_attention,
    choose_layout,
    slot_cells,
)

KIB = 1024


# 4 slots of 1,000 tokens at 1 KiB a cell: 4,000 KiB, or 4,096 KiB in streams.
@pytest.mark.parametrize(
    ("settings", "n_free", "on_gpu", "n_cells", "reason"),
    [
        ({}, 8192 * KIB, False, None, "4 slots x 1,000 cells take 4 MiB of 4"),
        ({}, 8190 * KIB, False, 4000, "4 slots x 1,000 cells take 4 MiB, more than 4"),
        ({}, 1 * KIB, False, 1000, "more than 0"),
        ({"kv_budget": 4096 * KIB}, 0, False, None, "4 MiB of 4"),
        ({"kv_budget": 2500 * KIB}, 10**12, False, 2500, "more than 2"),
        ({"kv_budget": 0}, 10**12, False, 1000, "more than 0"),
        ({"n_cells": 3000}, 10**12, False, 3000, "n_cells is set"),
        ({"n_cells": 30}, 10**12, False, 1000, "n_cells is set"),
        ({}, 8000 * KIB, True, 4000, "layers are on a GPU"),
        ({}, 4000 * KIB, True, 2000, "layers are on a GPU"),
        ({"kv_layout": "split"}, 0, False, None, "as configured"),
        ({"kv_layout": "split", "n_cells": 30}, 0, True, None, "as configured"),
        ({"kv_layout": "unified"}, 8000 * KIB, False, 4000, "as configured"),
        ({"kv_layout": "unified"}, 4000 * KIB, False, 2000, "as configured"),
        ({"kv_layout": "unified", "n_cells": 1500}, 0, False, 1500, "as configured"),
    ],
)
def test_choose_layout(
    settings: dict[str, Any], n_free: int, on_gpu: bool, n_cells: int | None, reason: str
) -> None:
    if "kv_budget" in settings:
        settings = {**settings, "kv_budget": ByteSize(settings["kv_budget"])}
    layout = choose_layout(EngineConfig(n_slots=4, **settings), 1000, KIB, n_free, on_gpu)
    assert (layout.n_ctx, layout.n_cells) == (1000, n_cells)
    assert layout.reason.endswith(reason)
    assert layout.name == ("split" if n_cells is None else "unified")


def test_a_model_without_cells_fits_always() -> None:
    config = EngineConfig(n_slots=4)
    assert choose_layout(config, 1000, 0, 0, on_gpu=False).n_cells is None
    unified = config.model_copy(update={"kv_layout": "unified"})
    assert choose_layout(unified, 1000, 0, 0, on_gpu=False).n_cells == 4000


@pytest.mark.parametrize(
    ("settings", "on_gpu", "has_amx", "flash_attn"),
    [
        ({}, False, True, "off"),
        ({}, False, False, "auto"),
        ({}, True, True, "auto"),
        ({"flash_attn": "on"}, False, True, "on"),
        ({"flash_attn": "off"}, True, True, "off"),
        ({"kv_quant": "q8_0"}, False, True, "on"),
        ({"kv_quant": "q8_0"}, False, False, "auto"),
        ({"kv_quant": "q8_0", "kv_quant_v": "f16"}, False, True, "off"),
        ({"kv_quant_v": "q4_0"}, False, True, "on"),
        ({"kv_quant": "bf16"}, False, True, "off"),
        ({"kv_quant_v": "q4_0", "flash_attn": "off"}, False, True, "off"),
    ],
)
def test_choose_attention(
    settings: dict[str, Any], on_gpu: bool, has_amx: bool, flash_attn: str
) -> None:
    config = EngineConfig(n_slots=3, n_ubatch=100, **settings)
    chosen = choose_attention(config, on_gpu, has_amx)
    assert chosen.flash_attn == flash_attn
    assert chosen.model_copy(update={"flash_attn": config.flash_attn}) == config


@pytest.mark.parametrize(
    ("settings", "on_gpu", "has_amx", "n_ubatch"),
    [
        ({}, False, True, 256),
        ({}, False, False, 512),
        ({}, True, True, 512),
        ({"flash_attn": "off"}, False, False, 256),
        ({"flash_attn": "off"}, True, False, 512),
        ({"flash_attn": "on"}, False, True, 512),
        ({"n_ubatch": 512}, False, True, 512),
        ({"n_batch": 100}, False, True, 100),
        ({"n_batch": 100}, False, False, 100),
    ],
)
def test_halves_of_a_batch_without_flash_attention(
    settings: dict[str, Any], on_gpu: bool, has_amx: bool, n_ubatch: int
) -> None:
    assert choose_attention(EngineConfig(**settings), on_gpu, has_amx).ubatch == n_ubatch


def test_names() -> None:
    assert Layout(8, None, "").name == "split"
    assert Layout(8, 8, "").name == "unified"


@pytest.mark.parametrize(
    ("flash_attn", "n_ctx", "n_cells"),
    [
        ("off", 2048, 2304),
        ("off", 2000, 2304),
        ("off", 8192, 8448),
        ("off", 1024, 1024),
        ("off", 2304, 2304),
        ("off", 1, 256),
        ("on", 2048, 2048),
        ("auto", 2048, 2048),
    ],
)
def test_values_do_not_lie_whole_pages_apart(flash_attn: str, n_ctx: int, n_cells: int) -> None:
    config = EngineConfig.model_validate({"flash_attn": flash_attn})
    assert slot_cells(config, n_ctx) == n_cells


def test_cells_are_counted_as_they_are_made() -> None:
    config = EngineConfig(n_slots=4, flash_attn="off", kv_budget=ByteSize(4 * 2304 * KIB))
    assert choose_layout(config, 2048, KIB, 0, on_gpu=False).name == "split"
    less = config.model_copy(update={"kv_budget": ByteSize(4 * 2304 * KIB - 1)})
    assert choose_layout(less, 2048, KIB, 0, on_gpu=False).name == "unified"
