"""Estimates against measured memory: quants of one model, over contexts.

Compared are `server.estimate` and what a real worker needs to stay in RAM after a prompt of 1,500
tokens: all of its own pages, and of the mapped file those that this prompt read. Plain resident
memory is told too: it counts the file's pages twice whose weights were repacked. One slot, flash
attention on, one thread. On Linux.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from server.engine_config import EngineConfig
from server.estimate import estimate
from server.gguf import read_header
from tests.measuring import taken_by_a_worker

CONTEXTS = (2048, 8192, 32_768)
N_PROMPT = 1500
WITHIN = 0.1
"""The bar: each estimate is off by no more than this share of what was measured."""


class Row(NamedTuple):
    """One point. Bytes."""

    quant: str
    n_ctx: int
    estimated: int
    measured: int
    resident: int

    @property
    def ratio(self) -> float:
        """Of the estimate to what was measured."""
        return self.estimated / self.measured


def rows(paths: Iterable[Path], contexts: Sequence[int] = CONTEXTS) -> Iterator[Row]:
    """Measure each file at each context."""
    for path in paths:
        header = read_header(path)
        for n_ctx in contexts:
            config = EngineConfig(n_ctx=n_ctx, n_slots=1, n_threads=1, flash_attn="on")
            taken = taken_by_a_worker(path, config, min(N_PROMPT, n_ctx - 64))
            parts = estimate(header, config, n_ctx)
            yield Row(header.quant, n_ctx, parts.total, taken.needed, taken.own + taken.mapped)
