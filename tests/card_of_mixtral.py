"""The quants of an 8x7b mixture of experts, as cards list them: sizes in GB, and what they need."""

import os
from pathlib import Path

from tests.gguf_files import write_gguf

CARD = {
    "Q2_K": ("15.64", "18.14"),
    "Q3_K_M": ("20.36", "22.86"),
    "Q4_0": ("26.44", "28.94"),
    "Q4_K_M": ("26.44", "28.94"),
    "Q5_0": ("32.23", "34.73"),
    "Q5_K_M": ("32.23", "34.73"),
    "Q6_K": ("38.38", "40.88"),
    "Q8_0": ("49.62", "52.12"),
}
"""Size and max RAM required, in GB."""

LISTED = {"Q2_K": 17.3, "Q3_K_M": 22.5, "Q4_0": 26.4, "Q5_0": 32.2, "Q6_K": 38.4, "Q8_0": 49.6}
"""Sizes of another such family, in GB."""

CELL_BYTES = 32 * 2 * 8 * 128 * 2
"""32 layers, keys and values of 8 heads of 128 numbers of 2 bytes."""


def size_of(quant: str) -> int:
    return int(CARD[quant][0].replace(".", "")) * 10**7


def header(path: Path, hole: int = 0) -> Path:
    """A file with such a model's header and next to no weights, or without `hole` bytes of them."""
    return write_gguf(
        path,
        hole=hole,
        llama__block_count=32,
        llama__embedding_length=4096,
        llama__context_length=32768,
        llama__attention__head_count=32,
        llama__attention__head_count_kv=8,
        llama__expert_count=8,
        llama__expert_used_count=2,
        tokenizer__ggml__tokens=[f"word{i}" for i in range(32000)],
    )


def sparse(path: Path, n_bytes: int) -> None:
    """A file of that size, of which the header alone takes room on the disk."""
    weights = n_bytes - header(path).stat().st_size - 1024
    os.truncate(header(path, weights), n_bytes)
