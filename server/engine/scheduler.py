"""Scheduler: who waits, who runs, and what the next forwards take."""

from bisect import insort
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Ids
from typing import NamedTuple

from server.engine.kv import KVCells, Match
from server.engine.llama import NoRoom
from server.engine.sequence import Sequence
from server.engine_config import DRAFTED_ROWS

MAX_FORCED = 16
"""Tokens that a grammar forces and that are forwarded with the next ones of the others."""

MAX_ROWS = 64
"""Logits of one prompt in a step: each row is a whole vocabulary wide."""


class Span(NamedTuple):
    """One sequence's part of a batch: its next `n` pending tokens, and what may follow them."""

    sequence: Sequence
    n: int
    draft: Ids[int] = ()
    """Guesses; only where the pending ones reach the end."""

    @property
    def reaches_end(self) -> bool:
        """Whether the next token can be sampled after it."""
        return self.n == self.sequence.n_pending

    @property
    def n_rows(self) -> int:
        """Tokens at its end whose logits are wanted."""
        if self.sequence.wants_all_logits:
            return self.n
        return 1 + len(self.draft) if self.reaches_end else 0


def fill(spans: list[Span], capacity: int) -> Iterator[list[Span]]:
    """Spans in groups of at most `capacity` tokens; a longer span is cut to its first part."""
    if spans and sum(span.n for span in spans) <= capacity:
        yield spans
        return
    group: list[Span] = []
    room = capacity
    for span in spans:
        if group and span.n > room:
            yield group
            group, room = [], capacity
        n = min(span.n, capacity)
        group.append(Span(span.sequence, n))
        room -= n
    if group:
        yield group


class Scheduler:
    """The order of everything. Decoding sequences come first; prompts fill the rest of a step."""

    def __init__(self, kv: KVCells):
        self._kv = kv
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        """In the order of arrival."""
        self._is_full = False
        """Cells have run out: nobody is admitted before somebody has ended."""
        self._had_gap = False

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def find(self, id: int) -> Sequence | None:
        """The sequence of a request, waiting or running."""
        both = (s for queue in (self.running, self.waiting) for s in queue)
        return next((s for s in both if s.id == id), None)

    def remove(self, sequence: Sequence, keep: bool) -> None:
        """A sequence has ended. Its cells are kept for others or dropped."""
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self._kv.release(sequence, keep)
        self._is_full = False

    def admit(self) -> None:
        """Give slots to waiting sequences, first come first served.

        One whose prefix another is just computing stays, and holds up nobody else.
        """
        for sequence in list(self.waiting):
            if not self._kv.n_free or (self._is_full and self.running):
                break
            match = self._kv.match(sequence)
            if match.wait:
                continue
            if not self._claim(sequence, match):
                break
            self.waiting.remove(sequence)
            sequence.begin()
            insort(self.running, sequence, key=lambda s: s.id)
        self._close_gaps()

    def _claim(self, sequence: Sequence, match: Match) -> bool:
        while True:
            try:
                self._kv.claim(sequence, match)
                return True
            except NoRoom:
                if not self._kv.make_room():
                    return False

    def _close_gaps(self) -> None:
        """Move a slot if a gap has stood for a step: a new sequence often fills it at once."""
        if self._had_gap and self._kv.has_gap:
            self._kv.compact()
        self._had_gap = self._kv.has_gap

    def decoding(self) -> list[Span]:
        """What is pending of each sequence whose next token is due, by ascending slot.

        Where it would cost those without a grammar time, forced tokens go one by one.
        """
        due = [s for s in self.running if _is_decoding(s)]
        one = self._kv.is_split and not all(s.has_grammar for s in due)
        return [Span(s, 1 if one else s.n_pending) for s in sorted(due, key=lambda s: s.slot or 0)]

    def drafted(self, spans: list[Span], n_draft: int, capacity: int) -> list[Span]:
        """What decodes, with `n_draft` guesses each, or less, or none.

        A draft costs everybody time, so all have one or nobody has, and nobody while prompts are
        computed. Spans of the same length are also what a batch takes best.
        """
        if not spans or not n_draft or len(spans) < len(self.running):
            return spans
        room = min(DRAFTED_ROWS, capacity) // len(spans) - 1
        n_useful = max(span.sequence.n_left for span in spans) - 1
        n = min(n_draft, room, n_useful, *(span.sequence.n_sure for span in spans))
        return [span._replace(draft=span.sequence.draft(n)) for span in spans] if n > 0 else spans

    def prefilling(self, budget: int) -> list[Span]:
        """Up to `budget` prompt tokens, of the oldest sequences first."""
        spans: list[Span] = []
        for sequence in self.running:
            if _is_decoding(sequence):
                continue
            n = min(sequence.n_pending, budget)
            if sequence.wants_all_logits:
                n = min(n, MAX_ROWS)
            if n > 0:
                spans.append(Span(sequence, n))
                budget -= n
        return spans

    def preempt(self) -> Sequence | None:
        """Send the youngest sequence back to waiting; None if only one runs."""
        if len(self.running) < 2:
            return None
        sequence = self.running.pop()
        self._kv.park(sequence)
        self.waiting.appendleft(sequence)
        self._is_full = True
        return sequence


def _is_decoding(sequence: Sequence) -> bool:
    """Whether a step takes it to its next token, at little cost for the others."""
    return sequence.n_pending <= (MAX_FORCED if sequence.n_completion else 1)
