"""How a model's KV cells are laid out, with the reasons, and how attention is computed."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from server.engine_config import N_UBATCH, EngineConfig

PAD = 256
"""Cells come in multiples of this."""

STRIDE = 2048
"""Cells whose values, of two bytes each, fill a page."""


@dataclass(frozen=True)
class Layout:
    """What the context is made with. `n_cells` is None in the split layout."""

    n_ctx: int
    n_cells: int | None
    reason: str

    @property
    def name(self) -> str:
        """`split` or `unified`."""
        return "split" if self.n_cells is None else "unified"


def padded(n_cells: int) -> int:
    """As many cells as llama.cpp makes of so many."""
    return -(-n_cells // PAD) * PAD


def slot_cells(config: EngineConfig, n_ctx: int) -> int:
    """Cells of each slot in split streams; `config` says how attention is computed.

    Without flash attention the values of a token lie as far apart as a stream has cells. Whole
    pages apart they share a few places in the processor's caches: measured with 16 streams, some
    more cells make a step 3% shorter, and 10% once their memory is in large pages.
    """
    n_cells = padded(n_ctx)
    return n_cells + PAD if config.flash_attn == "off" and n_cells % STRIDE == 0 else n_cells


def choose_layout(
    config: EngineConfig, n_ctx: int, bytes_per_cell: int, n_free: int, on_gpu: bool
) -> Layout:
    """Split streams where all slots' cells fit in the budget, or one pool of what does.

    `config` says how attention is computed. `bytes_per_cell`: K and V of one token over all layers.
    `n_free`: bytes free after loading.

    Measured: on a CPU without flash attention split streams decode up to 4 times faster, but
    slots x n_ctx cells are resident from the start.
    """
    budget = config.kv_budget if config.kv_budget is not None else n_free // 2
    wanted = config.n_slots * n_ctx
    size = config.n_slots * slot_cells(config, n_ctx) * bytes_per_cell
    sizes = f"{config.n_slots} slots x {n_ctx:,} cells take {size / 2**20:,.0f} MiB"
    fits = size <= budget
    pool = config.n_cells or (
        wanted if fits or not bytes_per_cell else min(wanted, budget // bytes_per_cell)
    )
    pool = max(pool, n_ctx)
    match config.kv_layout:
        case "split":
            return Layout(n_ctx, None, "as configured")
        case "unified":
            return Layout(n_ctx, pool, "as configured")
        case "auto":
            if config.n_cells is not None:
                return Layout(n_ctx, pool, "n_cells is set")
            if on_gpu:
                return Layout(n_ctx, pool, "layers are on a GPU")
            if fits:
                return Layout(n_ctx, None, f"{sizes} of {budget / 2**20:,.0f}")
            return Layout(n_ctx, pool, f"{sizes}, more than {budget / 2**20:,.0f}")


def choose_attention(config: EngineConfig, on_gpu: bool, has_amx: bool) -> EngineConfig:
    """Decide `flash_attn` and `n_ubatch` where they are left to us.

    Flash attention `auto` is llama.cpp's choice, but off on a CPU with AMX. Measured with 16 slots
    in split streams: such a CPU decodes long contexts 3 times faster without it, one with AVX-512
    alone is faster with it, by a fifth in prefill and in short contexts.

    Without it a CPU computes every token's attention to all cells that its batch fills, those
    behind the token too, and writes all of it down: prompts of 800 tokens are computed a fifth
    faster in halves of the usual batch. With it they are half as fast.
    """
    decided: dict[str, object] = {}
    if config.flash_attn == "auto" and has_amx and not on_gpu:
        quantised = (config.kv_quant_v or config.kv_quant) not in ("f32", "f16", "bf16")
        decided["flash_attn"] = "on" if quantised else "off"
    flash_attn = decided.get("flash_attn", config.flash_attn)
    if config.n_ubatch is None and flash_attn == "off" and not on_gpu:
        decided["n_ubatch"] = N_UBATCH // 2
    return config.model_copy(update=decided) if decided else config


@cache
def has_amx() -> bool:
    """Whether the processor multiplies matrices in tiles, as far as Linux tells."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_tile" in cpuinfo.read_text()
