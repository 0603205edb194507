"""The embedder over a context that notices every wrong cell, and what it makes of vectors."""

from collections.abc import Sequence as Ids
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.batch import Batch
from server.engine.embedder import MIN_TOKENS, Embedder
from server.engine.job import Job, Limits
from server.engine.llama import Vectors
from server.engine.vocabulary import Vocabulary
from server.errors import EngineError, QueueFull
from server.ipc import Answer, Embed, Embedded, Event, Failed, Rank, Ranked
from tests.engine.fake import FakeTokenizer

N_EMBD = 3
N_CTX = 256
N_SLOTS = 4


def row(tokens: Ids[int]) -> Vectors:
    """The vector of a token after (or among) these."""
    seed = hash(tuple(tokens)) % 2**32
    return np.random.default_rng(seed).normal(size=N_EMBD).astype(np.float32)


class FakeVectors:
    """Tokens by slot. A row depends on all that its slot holds, so none may be left over."""

    def __init__(self, n_cells: int, n_batch: int, can_cut: bool = True):
        self.can_cut, self.n_slots = can_cut, N_SLOTS
        self.n_cells = n_cells + n_batch if can_cut else n_cells
        self.n_batch = n_batch if can_cut else n_cells
        self.held: list[list[int]] = [[] for _ in range(N_SLOTS)]
        self.batches: list[dict[int, int]] = []
        """Tokens of each slot in each forward."""
        self.error: EngineError | None = None
        self.closed = False
        self.n_threads: int | None = None
        self._rows: list[Vectors] = []

    def use_threads(self, n: int) -> None:
        self.n_threads = n

    def forward(self, batch: Batch) -> None:
        assert not self.closed
        assert 0 < batch.n_tokens == batch.n_rows <= self.n_batch
        self._rows, taken = [], dict[int, int]()
        for i in range(batch.n_tokens):
            slot = int(batch.slot[i])
            assert batch.pos[i] == len(self.held[slot]), "something was left in the slot"
            self.held[slot].append(int(batch.token[i]))
            taken[slot] = taken.get(slot, 0) + 1
            self._rows.append(row(self.held[slot]))
        self.batches.append(taken)
        assert sum(map(len, self.held)) <= self.n_cells
        if self.error:
            raise self.error

    def rows(self, n_rows: int) -> Vectors:
        assert n_rows == len(self._rows)
        return np.stack(self._rows)

    def scores(self, slot: int) -> list[float]:
        return [float(row(self.held[slot])[0])]

    def drop(self, slot: int) -> None:
        self.held[slot] = []

    def close(self) -> None:
        self.closed = True


class Bench:
    """An embedder over fakes, and what it said."""

    def __init__(self, pooling: str = "mean", can_cut: bool = True, n_ubatch: int = 64):
        self.contexts: list[FakeVectors] = []
        self.events: list[Event] = []
        self.broken = 0
        """Contexts that cannot be made."""
        self._can_cut = can_cut
        self._n_ubatch = n_ubatch
        self.vocabulary = Vocabulary(FakeTokenizer())
        self.limits = Limits(pooling != "rank", pooling == "rank", N_CTX)
        self.embedder = Embedder(
            self._open, pooling, N_CTX, n_ubatch, 100, max_waiting=3, emit=self.events.extend
        )

    def _open(self, n_cells: int) -> FakeVectors:
        if self.broken:
            self.broken -= 1
            raise EngineError("no memory")
        context = FakeVectors(n_cells, self._n_ubatch, self._can_cut)
        self.contexts.append(context)
        return context

    @property
    def context(self) -> FakeVectors:
        """The one in use."""
        return self.contexts[-1]

    def embed(self, id: int, *texts: Ids[int]) -> None:
        question = Embed(tuple(tuple(text) for text in texts))
        self.embedder.add(Job(id, question, self.vocabulary, self.limits))

    def rank(self, id: int, query: str, *documents: str) -> None:
        self.embedder.add(Job(id, Rank(query, documents), self.vocabulary, self.limits))

    def run(self, busy: bool = False) -> None:
        for _ in range(1000):
            if self.embedder.idle:
                assert not any(any(context.held) for context in self.contexts)
                return
            self.embedder.step(busy)
        raise AssertionError("not done")

    def vectors(self, id: int) -> list[Vectors]:
        (event,) = (event for event in self.events if event.id == id)
        assert isinstance(event, Answer) and isinstance(event.reply, Embedded)
        return [np.frombuffer(raw, "<f4") for raw in event.reply.vectors]


def text(n: int, start: int = 1) -> list[int]:
    """A text of `n` tokens, different from others."""
    return [1 + (start * 7 + i) % 60 for i in range(n)]


def expected(tokens: Ids[int], pooling: str = "mean") -> Vectors:
    rows = [row(tokens[: i + 1]) for i in range(len(tokens))]
    match pooling:
        case "cls":
            vector = rows[0]
        case "last":
            vector = rows[-1]
        case _:
            vector = np.mean(rows, axis=0)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def check(bench: Bench, id: int, texts: Ids[Ids[int]], pooling: str = "mean") -> None:
    vectors = bench.vectors(id)
    assert len(vectors) == len(texts)
    for vector, tokens in zip(vectors, texts, strict=True):
        np.testing.assert_allclose(vector, expected(tokens, pooling), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("busy", [False, True])
def test_mixed_lengths_whole_and_cut(pooling: str, busy: bool) -> None:
    bench = Bench(pooling)
    texts = [text(n, n) for n in (1, 200, 3, 64, 65, 7, 130, 2)]
    bench.embed(5, *texts)
    bench.run(busy)
    check(bench, 5, texts, pooling)
    assert max(sum(taken.values()) for taken in bench.context.batches) <= 64


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=12), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_any_jobs_side_by_side(jobs: list[list[int]], can_cut: bool, busy: bool) -> None:
    bench = Bench(can_cut=can_cut)
    asked = {
        id: [text(n, 10 * id + k) for k, n in enumerate(lengths)] for id, lengths in enumerate(jobs)
    }
    for id, texts in asked.items():
        bench.embed(id, *texts)
    bench.run(busy)
    assert len(bench.events) == len(jobs)
    for id, texts in asked.items():
        check(bench, id, texts)
    assert all(context.closed for context in bench.contexts[:-1])
    assert all(before.n_cells < after.n_cells for before, after in pairwise(bench.contexts))


def test_a_text_that_must_not_be_cut_is_taken_whole() -> None:
    bench = Bench(can_cut=False)
    bench.embed(1, text(30), text(100), text(5))
    bench.run(busy=True)
    check(bench, 1, [text(30), text(100), text(5)])
    # What does not fit waits for a forward of its own, and for a larger context.
    assert [[*taken.values()] for c in bench.contexts for taken in c.batches] == [[30], [100], [5]]


def test_many_short_texts_share_a_forward() -> None:
    bench = Bench()
    bench.embed(1, *(text(3, n) for n in range(6)))
    bench.run()
    assert [len(taken) for taken in bench.context.batches] == [N_SLOTS, 2]


def test_jobs_take_turns() -> None:
    bench = Bench()
    bench.embed(1, *(text(20, n) for n in range(20)))
    bench.embed(2, text(4))
    bench.embedder.step(busy=False)
    check(bench, 2, [text(4)])
    assert not bench.embedder.idle


def test_the_context_grows_with_the_texts() -> None:
    bench = Bench()
    bench.embed(1, text(10))
    bench.run()
    bench.embed(2, text(129))
    bench.run()
    bench.embed(3, text(128), text(256), text(1))
    bench.run()
    assert [context.n_cells - 64 for context in bench.contexts] == [64, 256]
    assert [context.closed for context in bench.contexts] == [True, False]
    with bench.embedder:
        pass
    assert bench.context.closed


def test_forwards_are_short_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(n_ubatch=200)
    clock = iter(range(1000))
    # A forward takes a second: 100 ms are worth no more than the least.
    monkeypatch.setattr("server.engine.embedder.time.monotonic", lambda: float(next(clock)))
    bench.embed(1, text(200, 1), text(200, 2), text(200, 3))
    bench.embedder.step(busy=False)
    assert sum(bench.context.batches[-1].values()) == 200
    bench.embedder.step(busy=True)
    assert sum(bench.context.batches[-1].values()) == MIN_TOKENS
    bench.embedder.step(busy=False)
    assert sum(bench.context.batches[-1].values()) == 200
    bench.run(busy=True)
    check(bench, 1, [text(200, n) for n in (1, 2, 3)])


def test_a_cancelled_job_leaves_nothing() -> None:
    bench = Bench()
    bench.embed(1, text(100), text(100))
    bench.embed(2, text(9))
    bench.embedder.step(busy=False)
    bench.embedder.cancel(1)
    bench.embedder.cancel(99)
    bench.run()
    check(bench, 2, [text(9)])
    assert [event.id for event in bench.events] == [2]


def test_a_failed_forward_fails_its_jobs_alone() -> None:
    bench = Bench()
    bench.embed(1, text(60), text(50))
    bench.embed(2, text(60))
    bench.embedder.step(busy=False)
    bench.context.error = EngineError("broken")
    bench.embedder.step(busy=False)
    bench.context.error = None
    bench.embed(3, text(9))
    bench.run()
    assert {event.id for event in bench.events if isinstance(event, Failed)} == {1, 2}
    check(bench, 3, [text(9)])


def test_no_memory_for_a_context() -> None:
    bench = Bench()
    bench.broken = 1
    bench.embed(1, text(9))
    bench.embed(2, text(9))
    bench.run()
    (failed,) = (event for event in bench.events if isinstance(event, Failed))
    assert failed.id == 1 and failed.error.message == "no memory"
    check(bench, 2, [text(9)])


def test_too_many_jobs() -> None:
    bench = Bench()
    for id in range(4):
        bench.embed(id, text(5))
    (failed,) = bench.events
    assert isinstance(failed, Failed) and isinstance(failed.error, QueueFull)
    assert failed.id == 3 and failed.error.retry_after
    bench.run()
    assert len(bench.events) == 4


def test_scores_are_probabilities() -> None:
    bench = Bench("rank", can_cut=False)
    bench.rank(1, "AB", "C", "DE")
    bench.run()
    (event,) = bench.events
    assert isinstance(event, Answer) and isinstance(event.reply, Ranked)
    odds = [float(row([ord(c) - 32 for c in pair])[0]) for pair in ("ABC", "ABDE")]
    assert event.reply.scores == pytest.approx([1 / (1 + np.exp(-x)) for x in odds])
    assert event.reply.n_tokens == (3, 4)


def test_nothing_to_do_makes_no_context() -> None:
    bench = Bench()
    bench.embedder.step(busy=False)
    assert bench.embedder.idle and not bench.contexts


def test_threads_hold_for_contexts_that_are_made_later() -> None:
    bench = Bench()
    bench.embedder.use_threads(3)
    assert bench.contexts == []
    bench.embed(1, text(5))
    bench.run()
    assert bench.context.n_threads == 3
    bench.embedder.use_threads(2)
    assert bench.context.n_threads == 2
    bench.embed(2, text(200))
    bench.run()
    assert [context.n_threads for context in bench.contexts[1:]] == [2] * (len(bench.contexts) - 1)


def test_threads_are_left_alone_until_told() -> None:
    bench = Bench()
    bench.embed(1, text(5))
    bench.run()
    assert bench.context.n_threads is None
