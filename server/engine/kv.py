"""KVCells: the slots, their KV cells and every known prefix. The only caller of `Cells`.

A slot is running (a sequence owns it), kept (its sequence has ended, the cells remain for whoever
shares their tokens) or empty. Saved prefixes live in RAM, within a budget. One radix tree knows
the tokens of all of them:

    holder          tokens in the tree       cells that are there
    running slot    its prompt               [0, n_cached) of its sequence
    kept slot       all it holds             all of them
    Saved           all it holds             all of them, as bytes

Split layout: one stream of cells for each slot. Only streams with consecutive ids are computed
together, so running slots are kept side by side, and cells move between slots as bytes.
Unified layout: slots share cells, and `copy` costs nothing.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from server.engine.batch import Tokens
from server.engine.llama import NoRoom, State
from server.engine.prefix_tree import PrefixTree
from server.engine.sequence import Sequence

MIN_REUSE = 8
"""Fewer tokens are not worth a copy, nor waiting for."""

MAX_COPY = 50
"""Cells copied for each one that is of use; copying is hundreds of times cheaper than computing."""

MAX_SAVED = 8
"""Cells saved for each one that nobody else has."""


class Cells(Protocol):
    """What llama.cpp's context offers; the tests have one of their own."""

    n_slots: int

    def cells_of(self, slot: int) -> int: ...
    def trim(self, slot: int, n: int) -> bool: ...
    def copy(self, source: int, target: int, n: int) -> None: ...
    def save(self, slot: int) -> State: ...
    def restore(self, slot: int, state: State) -> None: ...


@dataclass(eq=False)
class Slot:
    """One `seq_id`."""

    id: int
    sequence: Sequence | None = None
    kept: Tokens = field(default_factory=lambda: np.empty(0, np.int32))
    used_at: int = 0

    @property
    def n_cells(self) -> int:
        """Tokens whose cells are there."""
        return self.sequence.n_cached if self.sequence else len(self.kept)


@dataclass(eq=False)
class Saved:
    """Cells in RAM."""

    tokens: Tokens
    state: State

    @property
    def n_cells(self) -> int:
        """Tokens whose cells are there."""
        return len(self.tokens)


@dataclass(frozen=True)
class Match:
    """The best source of a prompt's first `n` tokens."""

    n: int
    holder: Slot | Saved | None
    wait: bool
    """Another sequence is computing more of it right now."""


class KVCells:
    """The owner of all slots."""

    def __init__(self, cells: Cells, unified: bool, can_trim: bool, budget: int):
        self._cells = cells
        self._unified = unified
        self.can_trim = can_trim
        """False for recurrent and hybrid models: a slot's tail cannot be dropped."""
        self.slots = [Slot(id) for id in range(cells.n_slots)]
        self._saved: OrderedDict[Saved, None] = OrderedDict()
        self._saved_bytes = 0
        self._budget = budget
        self._tree = PrefixTree[Slot | Saved]()
        self._clock = 0

    @property
    def is_split(self) -> bool:
        """Spans of different lengths in one batch are computed one after the other."""
        return not self._unified

    @property
    def n_free(self) -> int:
        """Slots without a sequence."""
        return sum(slot.sequence is None for slot in self.slots)

    def match(self, sequence: Sequence) -> Match:
        """The longest known prefix of a sequence that has no slot yet."""
        if not sequence.cache_prompt or sequence.wants_all_logits or sequence.parked is not None:
            return Match(0, None, wait=False)
        best: tuple[int, bool, bool, int] = (0, False, False, 0)
        holder, n_held, soon = None, 0, 0
        usable = self._usable()
        # The last token is always forwarded: its logits are wanted.
        for found, n_common in self._tree.find(sequence.tokens[:-1]):
            if n_common < max(MIN_REUSE, n_held - MIN_REUSE):
                break
            n = min(n_common, found.n_cells)
            if isinstance(found, Slot) and found.sequence and n < n_common:
                soon = max(soon, n_common)
            # A slot that can be used as it is is best, even if it holds a little less. Of copies,
            # the one with the least to copy; what is in RAM need not be put there first, and what
            # slots share is not copied.
            in_place, is_ready = found in usable, isinstance(found, Slot) == self._unified
            rank = (n + MIN_REUSE * in_place, in_place, is_ready, -found.n_cells)
            if n >= MIN_REUSE and rank > best and self._is_worth(n, found):
                best, holder, n_held = rank, found, n
        return Match(n_held, holder, wait=soon - n_held >= MIN_REUSE)

    def _is_worth(self, n: int, holder: "Slot | Saved") -> bool:
        if not self.can_trim:
            return n == holder.n_cells
        return n * MAX_COPY >= holder.n_cells

    def claim(self, sequence: Sequence, match: Match) -> None:
        """Give a slot to a sequence, with the prefix that was found. Raises NoRoom."""
        slot = self._choose(match.holder)
        source = match.holder
        if source is slot:
            self._tree.remove(slot)
            self._cells.trim(slot.id, match.n)
            sequence.n_cached = sequence.n_reused = match.n
        elif sequence.parked is not None:
            self._empty(slot)
            self._cells.restore(slot.id, sequence.parked)
            sequence.parked = None
        else:
            self._empty(slot)
            n = self._fill(slot, source, match.n) if source else 0
            sequence.n_cached = sequence.n_reused = n
        self._give(slot, sequence)

    def release(self, sequence: Sequence, keep: bool) -> None:
        """Take a sequence's slot back; its cells are kept for others or dropped."""
        slot = self._slot_of(sequence)
        self.rewind(sequence)
        slot.kept = sequence.cached.copy()
        slot.sequence, sequence.slot = None, None
        if keep and len(slot.kept) >= MIN_REUSE:
            self._tree.insert(slot, slot.kept)
            slot.used_at = self._tick()
        else:
            self._drop(slot)

    def rewind(self, sequence: Sequence) -> None:
        """Drop what is behind the sequence's cursor: a failed forward's, or a draft's."""
        self._cells.trim(self._slot_of(sequence).id, sequence.n_cached)

    def park(self, sequence: Sequence) -> None:
        """Take a sequence's slot and cells, to be claimed again later with the same content."""
        slot = self._slot_of(sequence)
        sequence.parked = self._cells.save(slot.id)
        slot.sequence, sequence.slot = None, None
        self._drop(slot)

    def make_room(self) -> bool:
        """Give up the kept slot that was used longest ago; its cells go to RAM."""
        kept = [slot for slot in self.slots if slot.sequence is None and len(slot.kept)]
        if not kept:
            return False
        self._empty(min(kept, key=lambda slot: slot.used_at))
        return True

    @property
    def has_gap(self) -> bool:
        """Running slots are not side by side, where that costs time."""
        running = [slot.id for slot in self.slots if slot.sequence]
        return not self._unified and bool(running) and running[-1] - running[0] >= len(running)

    def compact(self) -> None:
        """Move the running slot with the highest id into the lowest gap between others."""
        running = [slot for slot in self.slots if slot.sequence]
        source = running[-1]
        gap = next(s for s in self.slots[running[0].id :] if s.sequence is None)
        sequence = source.sequence
        assert sequence is not None
        state = self._cells.save(source.id)
        self._empty(gap)
        self._cells.restore(gap.id, state)
        source.sequence = None
        self._drop(source)
        self._give(gap, sequence)

    def check(self) -> None:
        """Each slot holds as many cells as we believe, and no slot has got lost."""
        for slot in self.slots:
            held = self._cells.cells_of(slot.id)
            assert held == slot.n_cells, f"slot {slot.id}: {held} cells, believed {slot.n_cells}"
        assert self._saved_bytes == sum(len(saved.state) for saved in self._saved)
        assert self._saved_bytes <= self._budget

    def _give(self, slot: Slot, sequence: Sequence) -> None:
        slot.sequence, slot.kept = sequence, slot.kept[:0]
        sequence.slot = slot.id
        slot.used_at = self._tick()
        if sequence.cache_prompt:
            self._tree.insert(slot, sequence.prompt)

    def _choose(self, preferred: Slot | Saved | None) -> Slot:
        """The free slot to use next."""
        usable = self._usable()
        if isinstance(preferred, Slot) and preferred in usable:
            return preferred
        return min(usable, key=lambda slot: (len(slot.kept) > 0, slot.used_at, slot.id))

    def _usable(self) -> list[Slot]:
        """The free slots that may be given out: side by side with running ones if that matters."""
        free = [slot for slot in self.slots if slot.sequence is None]
        if self._unified:
            return free
        return _adjoining(free, [slot.id for slot in self.slots if slot.sequence])

    def _fill(self, slot: Slot, source: Slot | Saved, n: int) -> int:
        """Copy the first `n` cells of `source` into an empty slot; returns how many it got."""
        try:
            match source:
                case Slot() if self._unified:
                    self._cells.copy(source.id, slot.id, n)
                    return n
                case Slot():
                    state = self._cells.save(source.id)
                    tokens = source.sequence.cached if source.sequence else source.kept
                    self._remember(tokens.copy(), state)
                case Saved(state=state):
                    if source in self._saved:
                        self._saved.move_to_end(source)
            self._cells.restore(slot.id, state)
        except NoRoom:
            return 0
        if len(state) and source.n_cells > n:
            self._cells.trim(slot.id, n)
        return n

    def _empty(self, slot: Slot) -> None:
        """Save what a free slot keeps, and drop it."""
        if len(slot.kept) and self._is_worth_saving(slot):
            self._remember(slot.kept, self._cells.save(slot.id))
        self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        self._tree.remove(slot)
        self._cells.trim(slot.id, 0)
        slot.kept = slot.kept[:0]
        slot.used_at = 0

    def _is_worth_saving(self, slot: Slot) -> bool:
        """Others have too little of what it keeps, in slots or in RAM."""
        others = ((h, n) for h, n in self._tree.find(slot.kept) if h is not slot)
        if not self.can_trim:
            return not any(n == len(slot.kept) == holder.n_cells for holder, n in others)
        n_known = max((min(n, holder.n_cells) for holder, n in others), default=0)
        return (len(slot.kept) - n_known) * MAX_SAVED >= len(slot.kept)

    def _remember(self, tokens: Tokens, state: State) -> None:
        """Put cells into RAM; shorter ones that they contain and the oldest make room."""
        if len(state) > self._budget:
            return
        if self.can_trim:
            for holder, n in list(self._tree.find(tokens)):
                if isinstance(holder, Saved) and holder.n_cells == n:
                    self._forget(holder)
        while self._saved_bytes + len(state) > self._budget:
            self._forget(next(iter(self._saved)))
        saved = Saved(tokens, state)
        self._saved[saved] = None
        self._saved_bytes += len(state)
        self._tree.insert(saved, tokens)

    def _forget(self, saved: Saved) -> None:
        del self._saved[saved]
        self._saved_bytes -= len(saved.state)
        self._tree.remove(saved)

    def _slot_of(self, sequence: Sequence) -> Slot:
        assert sequence.slot is not None, f"sequence {sequence.id} has no slot"
        return self.slots[sequence.slot]

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _adjoining(free: list[Slot], running: list[int]) -> list[Slot]:
    """The free slots that leave the running ones side by side, or fill a gap between them."""
    if not running:
        return free
    first, last = running[0], running[-1]
    gaps = [slot for slot in free if first < slot.id < last]
    return gaps or [slot for slot in free if slot.id in (first - 1, last + 1)]
