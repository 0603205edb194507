"""Batch: what one forward takes, as arrays that are filled by slices."""

from collections.abc import Sequence as Ids

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


class Batch:
    """Up to `capacity` tokens of several slots, in the order they were added.

    Each array has `capacity` entries, of which the first `n_tokens` count. A row is a token
    whose logits are wanted; they come back in the same order.
    """

    def __init__(self, capacity: int):
        self.token = np.zeros(capacity, np.int32)
        self.pos = np.zeros(capacity, np.int32)
        self.slot = np.zeros(capacity, np.int32)
        self.wants_logits = np.zeros(capacity, np.int8)
        self.n_tokens = 0
        self.n_rows = 0
        self._count = np.arange(capacity, dtype=np.int32)

    @property
    def room(self) -> int:
        """Tokens that can still be added."""
        return len(self.token) - self.n_tokens

    def clear(self) -> None:
        """Start anew."""
        self.n_tokens = 0
        self.n_rows = 0

    def add(self, slot: int, tokens: Tokens | Ids[int], pos: int, n_rows: int) -> None:
        """Add a span of `slot` that starts at position `pos`; its last `n_rows` are rows."""
        n = len(tokens)
        start, end = self.n_tokens, self.n_tokens + n
        # llama.cpp aborts the process on a larger batch.
        assert 0 < n <= self.room, f"span of {n} tokens, room for {self.room}"
        if n == 1:
            # What most spans are; slices of one take five times as long.
            self.token[start] = tokens[0]
            self.pos[start] = pos
            self.slot[start] = slot
            self.wants_logits[start] = n_rows
            self.n_rows += n_rows
            self.n_tokens = end
            return
        self.token[start:end] = tokens
        self.pos[start:end] = self._count[:n]
        self.pos[start:end] += pos
        self.slot[start:end] = slot
        self.wants_logits[start:end] = 0
        if n_rows:
            self.wants_logits[end - n_rows : end] = 1
            self.n_rows += n_rows
        self.n_tokens = end
