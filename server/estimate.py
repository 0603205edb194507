"""What a model takes of memory, by its header alone: pure functions of its sizes.

What is estimated is what must be there while the model generates: every buffer that llama.cpp
touches then, and the weights once. Some layers' weights are repacked for the processor; the file's
own pages that these copies stand for are never read again, and go when somebody needs the room.
Not among it: what prompt scores and embeddings add when somebody first asks for them, and prefixes
that are kept.
"""

from typing import NamedTuple

from server.engine_config import DRAFTED_ROWS, EngineConfig
from server.gguf import Header, Layer
from server.layout import choose_attention, has_amx, padded, slot_cells

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

WORKER_BYTES = 64 * 2**20
"""Of a worker process that holds next to no model: its interpreter and libraries."""

TOKEN_BYTES = 350
"""Of each token of the vocabulary: llama.cpp's tables, merges among them, and our own."""

CELL_BYTES = 68
"""Of each cell beside its K and V: whose it is, and where it stands."""

FLOAT = 4


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

    Layers with a sliding window keep as many cells as others: only so can a prefix be trimmed.
    """
    return sum(cell_bytes(layer, config) for layer in header.layers)


def cell_bytes(layer: Layer, config: EngineConfig) -> float:
    """K and V of one token in one layer."""
    kind_v = config.kv_quant_v or config.kv_quant
    return layer.k * KV_BYTES[config.kv_quant] + layer.v * KV_BYTES[kind_v]


def estimate(
    header: Header, config: EngineConfig, n_ctx: int, n_slots: int = 1, n_cells: int | None = None
) -> Estimate:
    """What a model takes of RAM, without a GPU.

    It runs `n_slots` requests of up to `n_ctx` tokens, in one pool of `n_cells`, or each in cells
    of its own.
    """
    config = choose_attention(config, on_gpu=False, has_amx=has_amx())
    n_seen = slot_cells(config, n_ctx) if n_cells is None else padded(n_cells)
    n_all = n_seen * n_slots if n_cells is None else n_seen
    rows = output_buffer(header, output_rows(config, n_slots))
    return Estimate(
        worker=worker_bytes(header),
        weights=header.weights,
        cells=round(n_all * (bytes_per_cell(header, config) + CELL_BYTES)),
        buffers=layer_buffer(header, config, n_seen) + rows,
    )


def worker_bytes(header: Header) -> int:
    """The process, and the model's vocabulary."""
    return WORKER_BYTES + header.n_vocab * TOKEN_BYTES


def layer_buffer(header: Header, config: EngineConfig, n_seen: int) -> int:
    """What the layers compute in, for a batch whose tokens can look at `n_seen` cells.

    Fitted to llama.cpp's own sizes over dense and mixed models, contexts and layouts. A mask stays
    all the time; beside it lie the widest values inside of a feed-forward, or attention's. Without
    flash attention these are the scores of all heads.
    """
    flash = config.flash_attn != "off"
    mask = n_seen / 2 if flash else n_seen
    attention = 6 * header.n_embd + (0 if flash else header.n_head * n_seen)
    feed_forward = 3 * header.n_ff + 4 * header.n_embd
    return round(FLOAT * config.ubatch * (mask + max(attention, feed_forward)))


def mask_bytes(config: EngineConfig, n_seen: int) -> int:
    """The mask alone, which every device has."""
    flash = config.flash_attn != "off"
    return FLOAT * config.ubatch * n_seen // (2 if flash else 1)


def logits_buffer(header: Header, config: EngineConfig) -> int:
    """The last step's: room for the logits of a whole batch.

    In RAM it is set aside and hardly ever touched, hence not estimated; a GPU's memory is taken.
    """
    return FLOAT * config.ubatch * (header.n_vocab + 2 * header.n_embd)


def output_rows(config: EngineConfig, n_slots: int) -> int:
    """Tokens of one forward whose logits are read: one for each slot, more with drafts."""
    return max(n_slots, min(DRAFTED_ROWS, n_slots * (1 + config.n_draft)))


def output_buffer(header: Header, n_rows: int) -> int:
    """So many rows of logits, where they are computed and where they are read."""
    return 2 * FLOAT * n_rows * header.n_vocab
