"""Embedder: texts to vectors and scores, one forward after another, beside what generates."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import numpy as np

from server.engine.batch import Batch
from server.engine.job import Job
from server.engine.llama import Vectors
from server.errors import CorralError, EngineError, QueueFull
from server.ipc import Answer, Event, Failed

log = logging.getLogger(__name__)

MIN_TOKENS = 64
"""Tokens that a forward takes at least, however slow the machine is."""


class Context(Protocol):
    """What the embedder needs of llama.cpp; the tests have one of their own."""

    can_cut: bool
    n_cells: int
    n_slots: int
    n_batch: int

    def forward(self, batch: Batch) -> None: ...
    def use_threads(self, n: int) -> None: ...
    def rows(self, n_rows: int) -> Vectors: ...
    def scores(self, slot: int) -> list[float]: ...
    def drop(self, slot: int) -> None: ...
    def close(self) -> None: ...


class _Text(NamedTuple):
    """One text of a job, in a slot.

    tokens  [0, n_done)  have been forwarded, and `pooled`
            [n_done, n)  are still to be
    """

    job: Job
    number: int
    slot: int
    n_done: int = 0
    pooled: Vectors | None = None

    @property
    def n(self) -> int:
        return len(self.job.texts[self.number])


class _Span(NamedTuple):
    """The next `n` tokens of a text."""

    text: _Text
    n: int


class Embedder:
    """Takes texts of all jobs in turns, as many as go into a forward. Used by one thread.

    `open` makes a context of so many cells or a few more. The first one is made for the first
    text, a larger one when a longer text comes: most texts are short, and cells take memory.
    """

    def __init__(
        self,
        open: Callable[[int], Context],
        pooling: str,
        n_ctx: int,
        n_ubatch: int,
        slice_ms: int,
        max_waiting: int,
        emit: Callable[[list[Event]], None],
    ):
        """A forward takes `n_ubatch` tokens, or one text, and while others wait `slice_ms`."""
        self._open = open
        self._pooling = pooling
        self._n_ctx = n_ctx
        self._n_usual = min(n_ubatch, n_ctx)
        self._slice_s = slice_ms / 1000
        self._max_waiting = max_waiting
        self._emit = emit
        self._jobs: deque[Job] = deque()
        """Those with texts that have had no slot; the first one's turn is next."""
        self._cut: _Text | None = None
        """The only text that a forward may leave unfinished."""
        self._context: Context | None = None
        self._batch = Batch(0)
        self._rate = 0.0
        """Tokens per second, a moving mean; 0 before the first."""
        self._n_threads: int | None = None
        """None: as contexts are made."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def idle(self) -> bool:
        """Nothing is left to do."""
        return not self._jobs and self._cut is None

    def add(self, job: Job) -> None:
        """Queue a job."""
        if len(self._jobs) < self._max_waiting:
            self._jobs.append(job)
        else:
            message = f"{len(self._jobs)} requests for embeddings wait, no more may"
            self._emit([Failed(job.id, QueueFull(message, retry_after=2.0))])

    def cancel(self, id: int) -> None:
        """Forget a job whose client has gone; nothing happens if it has ended."""
        self._jobs = deque(job for job in self._jobs if job.id != id)
        if self._cut is not None and self._cut.job.id == id:
            self._drop(self._cut)
            self._cut = None

    def use_threads(self, n: int) -> None:
        """Compute with so many from the next forward on."""
        self._n_threads = n
        if self._context is not None:
            self._context.use_threads(n)

    def step(self, busy: bool) -> None:
        """One forward, a short one if somebody else is `busy`."""
        if self.idle:
            return
        started = time.monotonic()
        try:
            context = self._context_for_next()
        except EngineError as error:
            self._fail([self._jobs.popleft()], error)
            return
        spans = self._fill(context, self._budget(busy))
        try:
            context.forward(self._batch)
        except EngineError as error:
            for text, _ in spans:
                self._drop(text)
            self._fail([text.job for text, _ in spans], error)
        else:
            self._take(context, spans)
            self._measure(self._batch.n_tokens, time.monotonic() - started)

    def _budget(self, busy: bool) -> int:
        """Tokens that the next forward may take."""
        timely = max(MIN_TOKENS, int(self._rate * self._slice_s))
        return min(self._n_usual, timely) if busy else self._n_usual

    def _measure(self, n_tokens: int, seconds: float) -> None:
        if n_tokens >= MIN_TOKENS or not self._rate:
            rate = n_tokens / max(seconds, 1e-6)
            self._rate = (self._rate + 3 * rate) / 4 if self._rate else rate

    def _context_for_next(self) -> Context:
        """A context that holds the next text. Raises EngineError."""
        if self._context is not None:
            if self._cut is not None or len(self._jobs[0].next) <= self._context.n_cells:
                return self._context
            self._close()
        wanted = self._n_usual
        while wanted < len(self._jobs[0].next):
            wanted *= 2
        self._context = self._open(min(wanted, self._n_ctx))
        if self._n_threads is not None:
            self._context.use_threads(self._n_threads)
        self._batch = Batch(self._context.n_batch)
        log.info("embeddings: a context of %d tokens", self._context.n_cells)
        return self._context

    def _close(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

    def _fill(self, context: Context, budget: int) -> list[_Span]:
        """Fill the batch with what is left of the cut text, then with others in their turns."""
        self._batch.clear()
        spans: list[_Span] = []
        free = deque(range(context.n_slots))
        n_cells = context.n_cells
        if self._cut is not None:
            text, self._cut = self._cut, None
            free.remove(text.slot)
            n_cells -= text.n
            spans.append(self._put(text, budget))
        while free and self._jobs:
            n, room = len(self._jobs[0].next), budget - self._batch.n_tokens
            if n > n_cells or room <= 0:
                break
            if n > room and not context.can_cut:
                if spans:
                    break
                room = n
            n_cells -= n
            spans.append(self._put(self._begin(free.popleft()), room))
        return spans

    def _begin(self, slot: int) -> _Text:
        """The next text; after it, it is the next job's turn."""
        job = self._jobs.popleft()
        text = _Text(job, job.n_begun, slot)
        job.n_begun += 1
        if job.n_begun < len(job.texts):
            self._jobs.append(job)
        return text

    def _put(self, text: _Text, room: int) -> _Span:
        n = min(text.n - text.n_done, room, self._batch.room)
        tokens = text.job.texts[text.number][text.n_done : text.n_done + n]
        self._batch.add(text.slot, tokens, text.n_done, n_rows=n)
        return _Span(text, n)

    def _take(self, context: Context, spans: list[_Span]) -> None:
        """Note what the forward says of each text, and answer the jobs that are complete."""
        at = 0
        rows = None if self._pooling == "rank" else context.rows(self._batch.n_tokens)
        for text, n in spans:
            done = text._replace(n_done=text.n_done + n)
            if rows is not None:
                done = done._replace(pooled=self._pool(text.pooled, rows[at : at + n]))
            at += n
            if done.n_done < done.n:
                self._cut = done
                continue
            self._note(done, context)
            self._drop(done)

    def _pool(self, before: Vectors | None, rows: Vectors) -> Vectors:
        """One vector for a text so far, from that of its earlier part; a sum where it is a mean."""
        match self._pooling:
            case "cls":
                return rows[0].copy() if before is None else before
            case "last":
                return rows[-1].copy()
            case _:
                total = rows.sum(axis=0)
                return total if before is None else before + total

    def _note(self, text: _Text, context: Context) -> None:
        job = text.job
        if text.pooled is None:
            job.results[text.number] = _relevance(context.scores(text.slot))
        else:
            job.results[text.number] = _normalised(text.pooled)
        if len(job.results) == len(job.texts):
            self._emit([Answer(job.id, job.reply)])

    def _drop(self, text: _Text) -> None:
        if self._context is not None:
            self._context.drop(text.slot)

    def _fail(self, jobs: list[Job], error: CorralError) -> None:
        ids = {job.id for job in jobs}
        self._jobs = deque(job for job in self._jobs if job.id not in ids)
        self._emit([Failed(id, error) for id in sorted(ids)])


def _normalised(vector: Vectors) -> bytes:
    """The direction alone, as little-endian float32."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length else vector).astype("<f4").tobytes()


def _relevance(scores: list[float]) -> float:
    """From 0 to 1. A head with one output gives log odds; others begin with a probability."""
    return scores[0] if len(scores) > 1 else (1 + math.tanh(scores[0] / 2)) / 2
