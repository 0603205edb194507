"""Estimates by tables of sizes, and against a published model's."""

from dataclasses import replace
from typing import Any

import pytest

from server.config import EngineConfig
from server.estimate import KV_BYTES, WORKER_BYTES, bytes_per_cell, choose_n_ctx, estimate
from server.gguf import Header

MIXTRAL = Header(
    kind="model",
    architecture="llama",
    name="Mixtral 8x7B",
    quant="Q4_K_M",
    n_layer=32,
    n_embd=4096,
    n_head=32,
    n_embd_k=32 * 8 * 128,
    n_embd_v=32 * 8 * 128,
    n_vocab=32_000,
    n_ctx_train=32_768,
    n_params=46_702_792_704,
    size_bytes=28_446_410_624,
    template=None,
)
"""The sizes of the model; that of the file is about what a Q4_K_M of it takes."""


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
    parts = estimate(MIXTRAL, EngineConfig(), 8192)
    assert parts.worker == WORKER_BYTES
    assert parts.weights == MIXTRAL.size_bytes
    assert parts.cells == 2**30
    assert parts.buffers == 4 * (512 * (32_000 + 3 * 4096) + 32_000)
    assert parts.total == WORKER_BYTES + MIXTRAL.size_bytes + 2**30 + parts.buffers


def test_cells_grow_with_slots_and_context() -> None:
    one = estimate(MIXTRAL, EngineConfig(), 2048)
    assert estimate(MIXTRAL, EngineConfig(), 2048, 4).cells == 4 * one.cells
    assert estimate(MIXTRAL, EngineConfig(), 8192).cells == 4 * one.cells


def test_without_flash_attention_a_long_context_needs_room_for_its_scores() -> None:
    on, off = EngineConfig(flash_attn="on"), EngineConfig(flash_attn="off")
    assert estimate(MIXTRAL, off, 512).buffers == estimate(MIXTRAL, on, 512).buffers
    assert estimate(MIXTRAL, off, 8192).buffers > 4 * 512 * 8192 * 32
    assert estimate(MIXTRAL, on, 8192).buffers < 4 * 512 * 8192 * 32


def test_a_small_context_has_small_batches() -> None:
    assert estimate(MIXTRAL, EngineConfig(), 64).buffers == 4 * (64 * 44_288 + 32_000)


def test_a_model_without_a_cache_has_no_cells() -> None:
    assert estimate(replace(MIXTRAL, n_embd_k=0, n_embd_v=0), EngineConfig(), 8192).cells == 0


def test_every_kv_quant_has_a_size() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for name, n_bytes in KV_BYTES.items():
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]]
        assert n_bytes == size / block
        EngineConfig.model_validate({"kv_quant": name})
