"""Estimates by tables of sizes, against a published model's, and against a real worker's memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.engine_config import EngineConfig
from server.estimate import (
    CELL_BYTES,
    KV_BYTES,
    TOKEN_BYTES,
    WORKER_BYTES,
    bytes_per_cell,
    choose_n_ctx,
    estimate,
    layer_buffer,
    logits_buffer,
    output_buffer,
    output_rows,
)
from server.gguf import Header, Layer, read_header
from server.layout import padded
from tests.measuring import taken_by_a_worker

MIXTRAL = Header(
    kind="model",
    architecture="llama",
    name="Mixtral 8x7B",
    quant="Q4_K_M",
    layers=(Layer(820_000_000, 792_723_456, 1024, 1024),) * 32,
    input_bytes=73_728_000,
    output_bytes=107_536_384,
    tied_bytes=0,
    largest_bytes=264_241_152,
    n_embd=4096,
    n_ff=2 * 14336,
    n_head=32,
    n_vocab=32_000,
    n_ctx_train=32_768,
    n_params=46_702_792_704,
    size_bytes=26_441_533_376,
    template=None,
)
"""Its sizes, nearly."""

FLASH = EngineConfig(flash_attn="on")
MIB = 2**20


@pytest.mark.parametrize(
    ("settings", "n_ctx_train", "n_ctx"),
    [
        ({}, 2048, 2048),
        ({}, 131_072, 8192),
        ({"n_ctx_cap": 4096}, 131_072, 4096),
        ({"n_ctx": 131_072}, 2048, 131_072),
        ({"n_ctx": 512}, 2048, 512),
        ({}, 0, 8192),
    ],
)
def test_choose_n_ctx(settings: dict[str, Any], n_ctx_train: int, n_ctx: int) -> None:
    assert choose_n_ctx(EngineConfig(**settings), n_ctx_train) == n_ctx


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 128 * 1024),
        ({"kv_quant": "q8_0"}, 68 * 1024),
        ({"kv_quant": "f16", "kv_quant_v": "q4_0"}, 64 * 1024 + 18 * 1024),
    ],
)
def test_bytes_per_cell(settings: dict[str, Any], expected: int) -> None:
    assert bytes_per_cell(MIXTRAL, EngineConfig(**settings)) == expected


def test_each_part_of_an_estimate() -> None:
    parts = estimate(MIXTRAL, FLASH, 8192)
    assert parts.worker == WORKER_BYTES + 32_000 * TOKEN_BYTES
    assert parts.weights == MIXTRAL.weights
    assert parts.cells == 2**30 + 8192 * CELL_BYTES
    assert parts.buffers == layer_buffer(MIXTRAL, FLASH, 8192) + output_buffer(MIXTRAL, 16)
    assert parts.total == sum(parts)


@pytest.mark.parametrize(
    ("n_slots", "n_draft", "expected"),
    [(1, 0, 1), (1, 15, 16), (2, 15, 32), (16, 15, 32), (16, 1, 32), (4, 1, 8), (40, 15, 40)],
)
def test_drafts_take_rows(n_slots: int, n_draft: int, expected: int) -> None:
    assert output_rows(EngineConfig(n_draft=n_draft), n_slots) == expected


def test_cells_grow_with_slots_and_context() -> None:
    one = estimate(MIXTRAL, FLASH, 2048)
    assert estimate(MIXTRAL, FLASH, 2048, 4).cells == 4 * one.cells
    assert estimate(MIXTRAL, FLASH, 8192).cells == 4 * one.cells
    assert estimate(MIXTRAL, FLASH, 2048, 4, 4096).cells == 2 * one.cells


@pytest.mark.parametrize(("n", "n_made"), [(1, 256), (256, 256), (257, 512)])
def test_cells_are_made_in_hundreds(n: int, n_made: int) -> None:
    assert padded(n) == n_made
    assert estimate(MIXTRAL, FLASH, n) == estimate(MIXTRAL, FLASH, n_made)


@pytest.mark.parametrize(
    ("changes", "flash_attn", "n_seen", "mib"),
    [
        # What llama.cpp says it takes, of shapes that differ in what is widest.
        ({}, "on", 8192, 208.01),
        ({"n_ff": 14336}, "on", 8192, 124.01),
        ({"n_ff": 16384}, "on", 8192, 136.01),
        ({"n_ff": 1024}, "on", 8192, 48.01),
        ({}, "on", 131_072, 328.01),
        ({}, "off", 8192, 572.01),
        ({}, "off", 131_072, 8492.01),
        ({"n_embd": 576, "n_ff": 1536, "n_head": 9}, "on", 131_072, 141.51),
        ({"n_embd": 576, "n_ff": 1536, "n_head": 9}, "off", 32_768, 646.38),
    ],
)
def test_what_layers_compute_in(
    changes: dict[str, Any], flash_attn: str, n_seen: int, mib: float
) -> None:
    config = FLASH.model_copy(update={"flash_attn": flash_attn})
    size = layer_buffer(replace(MIXTRAL, **changes), config, n_seen)
    assert size / MIB == pytest.approx(mib, rel=0.18 if changes.get("n_ff") == 1024 else 0.01)


def test_what_logits_take() -> None:
    demo = replace(MIXTRAL, n_embd=576, n_vocab=49_152)
    assert logits_buffer(demo, FLASH) / MIB == pytest.approx(98.25, abs=0.01)
    fewer = FLASH.model_copy(update={"n_ubatch": 128})
    assert logits_buffer(demo, fewer) / MIB == pytest.approx(24.56, abs=0.01)


def test_a_model_without_a_cache_has_no_cells() -> None:
    bare = replace(MIXTRAL, layers=(Layer(1, 0, 0, 0),) * 32)
    assert bytes_per_cell(bare, FLASH) == 0


def test_every_kv_quant_has_a_size() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for name, n_bytes in KV_BYTES.items():
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]]
        assert n_bytes == size / block
        EngineConfig.model_validate({"kv_quant": name})


@pytest.mark.parametrize(
    ("settings", "n_prompt"),
    [
        ({"n_ctx": 2048, "flash_attn": "on"}, 700),
        ({"n_ctx": 8192, "n_slots": 4, "flash_attn": "on"}, 700),
        ({"n_ctx": 1024, "n_slots": 2, "flash_attn": "off"}, 900),
        ({"n_ctx": 32_768, "kv_layout": "unified", "flash_attn": "on"}, 700),
    ],
)
def test_a_real_worker_takes_what_was_estimated(
    model_path: Path, settings: dict[str, Any], n_prompt: int
) -> None:
    config = EngineConfig.model_validate(
        {"n_threads": 1, "n_slots": 1, "kv_layout": "split", **settings}
    )
    assert config.n_ctx is not None
    unified = config.n_ctx if config.kv_layout == "unified" else None
    parts = estimate(read_header(model_path), config, config.n_ctx, config.n_slots, unified)
    measured = taken_by_a_worker(model_path, config, n_prompt)
    assert parts.total == pytest.approx(measured.needed, rel=0.1)
