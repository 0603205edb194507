"""What a model will take of memory, by its header alone: pure functions of its sizes."""

from typing import NamedTuple

from server.config import EngineConfig
from server.gguf import Header

KV_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes of one element of K or V."""

WORKER_BYTES = 41 * 2**20
"""Of a worker process that holds no model: its interpreter and libraries."""


class Estimate(NamedTuple):
    """Bytes by what they are for."""

    worker: int
    weights: int
    cells: int
    buffers: int

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(self)


def choose_n_ctx(config: EngineConfig, n_ctx_train: int) -> int:
    """The context of one request, in tokens."""
    return config.n_ctx or min(n_ctx_train or config.n_ctx_cap, config.n_ctx_cap)


def bytes_per_cell(header: Header, config: EngineConfig) -> float:
    """K and V of one token over all layers.

    Layers with a sliding window keep fewer cells than others; here they all count as whole.
    """
    kind_v = config.kv_quant_v or config.kv_quant
    return header.n_embd_k * KV_BYTES[config.kv_quant] + header.n_embd_v * KV_BYTES[kind_v]


def estimate(header: Header, config: EngineConfig, n_ctx: int, n_slots: int = 1) -> Estimate:
    """What a model takes that runs `n_slots` requests of up to `n_ctx` tokens.

    Repacked copies of weights do not count: the file's own pages that they stand for can go.
    """
    return Estimate(
        worker=WORKER_BYTES,
        weights=header.size_bytes,
        cells=round(n_slots * n_ctx * bytes_per_cell(header, config)),
        buffers=_buffers(header, config, n_ctx, n_slots),
    )


def _buffers(header: Header, config: EngineConfig, n_ctx: int, n_slots: int) -> int:
    """llama.cpp's, for one physical batch: its logits, or its attention scores if these are more.

    Flash attention keeps no scores.
    """
    n_batch = min(config.n_ubatch, config.n_batch, n_ctx * n_slots)
    scores = n_ctx * header.n_head if config.flash_attn == "off" else 0
    compute = n_batch * (max(header.n_vocab, scores) + 3 * header.n_embd)
    return 4 * (compute + n_slots * header.n_vocab)
