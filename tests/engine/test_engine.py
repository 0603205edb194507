"""The engine over a context that notices every wrong cell."""

from collections.abc import Iterator
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.batch import Batch
from server.errors import EngineError
from server.ipc import Accepted, Delta, Failed, Finished
from server.sampling import SamplingParams
from tests.engine.fake import GREEDY, Bench, Cell, FakeContext, expected

SHARED = [7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37] * 2


def prompts(n: int) -> Iterator[tuple[int, list[int]]]:
    """Prompts of different lengths, every other one with a shared beginning."""
    for i in range(n):
        own = [1 + (i * 5 + j * 3) % 60 for j in range(3 + i % 7)]
        yield i, SHARED + own if i % 2 else own


def test_a_lone_answer_is_the_expected_one() -> None:
    bench = Bench(FakeContext())
    bench.submit(1, [5, 6, 7])
    bench.run()
    assert bench.text(1) == expected([5, 6, 7], 8)
    assert bench.events[0] == Accepted(1, 3)


@pytest.mark.parametrize("n_batch", [4, 5, 7, 16, 64])
@pytest.mark.parametrize("n_cells", [None, 80, 200])
def test_batched_answers_equal_lone_ones(n_batch: int, n_cells: int | None) -> None:
    bench = Bench(FakeContext(n_slots=4, n_batch=n_batch, n_cells=n_cells))
    for id, prompt in prompts(12):
        bench.submit(id, prompt, max_tokens=6 + id)
    bench.run()
    for id, prompt in prompts(12):
        assert bench.text(id) == expected(prompt, 6 + id)
        bench.finished(id)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_order_of_arrivals_and_departures(data: st.DataObject) -> None:
    """Whoever stays gets the lone answer, whoever leaves frees the slot, no cell is ever wrong."""
    context = FakeContext(
        n_slots=data.draw(st.integers(1, 5)),
        n_batch=data.draw(st.sampled_from([4, 6, 16, 64])),
        n_cells=data.draw(st.sampled_from([None, None, 64, 90, 150])),
        can_trim=data.draw(st.sampled_from([True, True, False])),
    )
    bench = Bench(
        context,
        ram=data.draw(st.sampled_from([0, 200, 5000])),
        n_ubatch=data.draw(st.sampled_from([4, 64])),
    )
    asked: dict[int, tuple[list[int], int]] = {}
    gone: set[int] = set()
    for id in range(data.draw(st.integers(1, 10))):
        shared = SHARED[: data.draw(st.sampled_from([0, 4, 12, 32]))]
        own = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=12))
        asked[id] = (shared + own, data.draw(st.integers(1, 15)))
        bench.submit(id, shared + own, asked[id][1], cache_prompt=data.draw(st.booleans()))
        for _ in range(data.draw(st.integers(0, 6))):
            bench.step()
        if data.draw(st.integers(0, 3)) == 0:
            leaver = data.draw(st.sampled_from(sorted(asked)))
            bench.engine.cancel(leaver)
            gone.add(leaver)
    bench.run()
    for id, (prompt, max_tokens) in asked.items():
        end = bench.finished(id)
        if end.reason != "cancelled":
            assert bench.text(id) == expected(prompt, max_tokens)
        else:
            assert id in gone
            assert expected(prompt, max_tokens).startswith(bench.text(id))


def test_a_shared_prefix_is_computed_once() -> None:
    context = FakeContext(n_slots=8, n_batch=64, n_ctx=128)
    bench = Bench(context)
    for id in range(8):
        bench.submit(id, [*SHARED, 40 + id], max_tokens=4)
    bench.run()
    generated = sum(bench.finished(id).n_completion for id in range(8))
    # Each last token's cell is never needed, and each own prompt token is computed.
    assert context.n_forwarded <= len(SHARED) + 8 + generated
    assert [bench.finished(id).n_cached for id in range(8)] == [0] + [len(SHARED)] * 7


def test_those_who_wait_for_a_prefix_hold_up_nobody() -> None:
    bench = Bench(FakeContext(n_slots=4, n_batch=8, n_ctx=128), n_ubatch=8)
    bench.submit(1, [*SHARED, 1])
    bench.submit(2, [*SHARED, 2])
    bench.submit(3, [3, 4])
    bench.step()
    assert [s.id for s in bench.engine.scheduler.running] == [1, 3]
    bench.run()
    assert bench.finished(2).n_cached == len(SHARED)


def test_a_next_turn_reuses_the_whole_conversation() -> None:
    context = FakeContext()
    bench = Bench(context)
    bench.submit(1, SHARED, max_tokens=6)
    bench.run()
    answer = [ord(c) - 32 for c in bench.text(1)]
    bench.submit(2, [*SHARED, *answer, 3, 4, 5], max_tokens=2)
    bench.run()
    assert bench.finished(2).n_cached == len(SHARED) + len(answer) - 1


def test_without_cache_prompt_nothing_is_shared_or_kept() -> None:
    bench = Bench(FakeContext())
    bench.submit(1, SHARED, cache_prompt=False)
    bench.run()
    assert bench.context.n_used == 0
    bench.submit(2, SHARED)
    bench.submit(3, SHARED, cache_prompt=False)
    bench.run()
    assert [bench.finished(id).n_cached for id in (2, 3)] == [0, 0]


def test_kept_prefixes_survive_in_ram_when_their_slot_is_reused() -> None:
    bench = Bench(FakeContext(n_slots=1))
    bench.submit(1, SHARED, max_tokens=1)
    bench.run()
    bench.submit(2, [50, 51, 52, 53, 54, 55, 56, 57, 58, 59], max_tokens=1)
    bench.run()
    bench.submit(3, [*SHARED, 1], max_tokens=4)
    bench.run()
    assert bench.finished(3).n_cached == len(SHARED)
    assert bench.text(3) == expected([*SHARED, 1], 4)


def test_long_prompts_come_in_chunks_while_others_stream() -> None:
    bench = Bench(FakeContext(n_slots=4, n_ctx=400, n_batch=256))
    bench.submit(1, [1, 2, 3], max_tokens=60)
    bench.step()
    bench.submit(2, [1 + i % 60 for i in range(300)], max_tokens=1)
    bench.engine._prefill_rate = 1.0  # pyright: ignore[reportPrivateUsage]
    streamed: list[int] = []
    while not any(isinstance(e, Finished) and e.id == 2 for e in bench.events):
        before = len(bench.events)
        bench.engine._prefill_rate = 1.0  # pyright: ignore[reportPrivateUsage]
        bench.step()
        streamed.append(sum(e.id == 1 for e in bench.events[before:]))
    assert len(streamed) >= 300 // 64
    assert all(n == 1 for n in streamed)


def test_prompts_of_one_length_are_computed_together() -> None:
    """Others are not: llama.cpp would cut them into many small batches."""
    bench = Bench(FakeContext(n_batch=32), n_ubatch=24)
    prompts = [[10, 11, 12], [20, 21, 22, 23], [30, 31, 32, 33], [40] * 13, [50, 51, 52, 53]]
    slots = [bench.submit(id, prompt, max_tokens=1) for id, prompt in enumerate(prompts[:4])]
    assert len(slots) == 4
    bench.step()
    assert [sorted(batch) for batch in bench.context.batches] == [
        [0] * 3,
        [1] * 4 + [2] * 4,
        [3] * 13,
    ]
    bench.submit(4, prompts[4], max_tokens=1)
    bench.run()
    for id, prompt in enumerate(prompts):
        assert bench.text(id) == expected(prompt, 1)


def test_running_slots_are_side_by_side_again_after_a_departure() -> None:
    context = FakeContext(n_slots=4, n_batch=64)
    bench = Bench(context)
    for id in range(4):
        bench.submit(id, [10 + id, 3, 4], max_tokens=40)
    bench.step()
    bench.engine.cancel(1)
    for _ in range(3):
        bench.step()
    rows = context.batches[-1]
    assert rows == list(range(rows[0], rows[0] + 3))
    bench.run()
    for id in (0, 2, 3):
        assert bench.text(id) == expected([10 + id, 3, 4], 40)


def test_a_newcomer_fills_the_gap_before_anybody_moves() -> None:
    bench = Bench(FakeContext(n_slots=4, n_batch=64))
    running = [bench.submit(id, [10 + id, 3, 4], max_tokens=40) for id in range(4)]
    bench.step()
    gap = running[1].slot
    bench.engine.cancel(1)
    newcomer = bench.submit(9, [20, 21])
    bench.step()
    assert newcomer.slot == gap
    assert [s.slot for s in running] == [0, None, 2, 3]


def test_when_cells_run_out_the_youngest_waits_and_goes_on_later() -> None:
    context = FakeContext(n_slots=3, n_ctx=40, n_batch=64, n_cells=60)
    bench = Bench(context)
    parked: list[int] = []
    for id in range(3):
        bench.submit(id, [10 + id] * 10, max_tokens=28)
    while not bench.engine.idle:
        bench.step()
        parked += [s.id for s in bench.engine.scheduler.waiting if s.parked is not None]
    assert parked and 0 not in parked
    for id in range(3):
        assert bench.text(id) == expected([10 + id] * 10, 28)


def test_kept_prefixes_make_room_before_anybody_waits() -> None:
    bench = Bench(FakeContext(n_slots=3, n_ctx=40, n_batch=64, n_cells=60), ram=0)
    bench.submit(1, [1] * 20, max_tokens=5)
    bench.submit(2, [2] * 20, max_tokens=5)
    bench.run()
    bench.submit(3, [3] * 20, max_tokens=15)
    while not bench.engine.idle:
        bench.step()
        assert not bench.engine.scheduler.waiting
    assert bench.text(3) == expected([3] * 20, 15)


@pytest.mark.parametrize("n_steps", [0, 1, 2, 5])
def test_cancelling_frees_the_slot_at_once(n_steps: int) -> None:
    """While waiting, in prefill and in decode."""
    bench = Bench(FakeContext(n_slots=1, n_ctx=200, n_batch=64), n_ubatch=32)
    bench.submit(1, [1 + i % 50 for i in range(80)], max_tokens=50)
    for _ in range(n_steps):
        bench.step()
    bench.submit(2, [4, 5], max_tokens=3)
    bench.engine.cancel(1)
    assert bench.finished(1).reason == "cancelled"
    bench.step()
    assert [s.id for s in bench.engine.scheduler.running] in ([2], [])
    bench.run()
    assert bench.text(2) == expected([4, 5], 3)
    bench.engine.cancel(1)
    assert sum(isinstance(e, Finished) for e in bench.events) == 2


def test_stop_strings_end_the_answer_before_them() -> None:
    whole = expected([5, 6, 7], 30)
    bench = Bench(FakeContext())
    bench.submit(1, [5, 6, 7], max_tokens=30, stop=(whole[3:5],))
    bench.run()
    assert bench.text(1) == whole[: whole.find(whole[3:5])]
    assert bench.finished(1).reason == "stop"


def test_the_end_token_ends_and_ignore_eos_does_not() -> None:
    start = next(p for p in ([i, j] for i in range(1, 60) for j in range(1, 60))
                 if len(expected(p, 20)) < 10)  # fmt: skip
    bench = Bench(FakeContext())
    bench.submit(1, start, max_tokens=20)
    bench.submit(2, start, max_tokens=20, sampling=GREEDY.model_copy(update={"ignore_eos": True}))
    bench.run()
    assert bench.finished(1).reason == "stop"
    assert bench.finished(1).n_completion == len(expected(start, 20)) + 1
    assert (bench.finished(2).reason, bench.finished(2).n_completion) == ("length", 20)


def test_a_full_context_ends_with_length() -> None:
    bench = Bench(FakeContext(n_ctx=20))
    bench.submit(1, [9] * 12, None, sampling=GREEDY.model_copy(update={"ignore_eos": True}))
    bench.run()
    assert bench.finished(1).reason == "length"
    assert bench.finished(1).n_completion == 8


def test_no_tokens_asked_for() -> None:
    bench = Bench(FakeContext())
    bench.submit(1, [5, 6], max_tokens=0)
    assert bench.engine.idle
    assert bench.finished(1).reason == "length"


def test_a_refused_batch_fails_its_requests_only() -> None:
    class Refusing(FakeContext):
        def forward(self, batch: Batch) -> None:
            if 33 in batch.token[: batch.n_tokens]:
                raise EngineError("llama_decode returned -1")
            super().forward(batch)

    bench = Bench(Refusing())
    bench.submit(1, [5, 6, 7], max_tokens=3)
    bench.submit(2, [33, 34, 35])
    bench.run()
    assert isinstance(bench.events[-1], Failed | Finished)
    assert [e.id for e in bench.events if isinstance(e, Failed)] == [2]
    assert bench.text(1) == expected([5, 6, 7], 3)


@pytest.mark.parametrize("n_cells", [None, 100])
def test_a_refused_batch_is_tried_again_one_by_one(n_cells: int | None) -> None:
    class Refusing(FakeContext):
        def forward(self, batch: Batch) -> None:
            if {33, 44} & set(batch.token[: batch.n_tokens].tolist()):
                # What llama.cpp had computed before it gave up.
                self.cells[int(batch.slot[0])].append(Cell(int(batch.token[0])))
                raise EngineError("llama_decode returned -3")
            super().forward(batch)

    bench = Bench(Refusing(n_cells=n_cells))
    bench.submit(1, [33, 6, 7], max_tokens=3)
    bench.submit(2, [5, 6, 7], max_tokens=1)
    bench.submit(3, [8, 9, 44], max_tokens=3)
    bench.run()
    assert sorted(e.id for e in bench.events if isinstance(e, Failed)) == [1, 3]
    assert bench.text(2) == expected([5, 6, 7], 1)


def test_cells_that_cannot_be_had_at_all_fail_the_request() -> None:
    class Full(FakeContext):
        @property
        def n_used(self) -> int:
            return 10**6

    bench = Bench(Full(n_cells=100))
    bench.submit(1, [5, 6, 7])
    bench.run()
    last = bench.events[-1]
    assert isinstance(last, Failed)
    assert "nothing else runs" in last.error.message


def test_sampled_answers_are_the_same_batched_and_alone() -> None:
    params = SamplingParams(temperature=1.5, seed=7, top_k=10, repeat_penalty=1.3)
    alone = Bench(FakeContext())
    alone.submit(1, [5, 6, 7], sampling=params)
    alone.run()
    crowd = Bench(FakeContext())
    for id in range(9):
        crowd.submit(id, [5, 6, 7] if id == 1 else [id + 1, 3], sampling=params)
    crowd.run()
    assert crowd.text(1) == alone.text(1)
    assert alone.text(1) != expected([5, 6, 7], 8)


def test_deltas_count_held_back_tokens() -> None:
    whole = expected([5, 6, 7], 8)
    bench = Bench(FakeContext())
    bench.submit(1, [5, 6, 7], max_tokens=8, stop=(whole[:3] + "never",))
    bench.run()
    deltas = [e for e in bench.events if isinstance(e, Delta)]
    assert deltas[0].n_tokens == 4
    assert bench.text(1) == whole
    bench.finished(1)


@pytest.mark.parametrize(
    ("n_streams", "n_waiting", "budget"),
    [(0, 3, 1000), (3, 1, 200), (2, 2, 200), (1, 2, 400), (1, 7, 800)],
)
def test_many_who_wait_may_take_more_of_a_step(n_streams: int, n_waiting: int, budget: int) -> None:
    """A rate of 1,000 tokens per second and 200 ms: 200 tokens, up to four times as many."""
    context = FakeContext(n_slots=8, n_ctx=4000, n_batch=4000)
    bench = Bench(context)
    for id in range(n_streams):
        bench.submit(id, [10 + id, 3, 4], max_tokens=40)
    if n_streams:
        bench.step()
    for id in range(n_waiting):
        bench.submit(100 + id, [1 + (id * 7 + i * i) % 60 for i in range(1500)], max_tokens=1)
    bench.engine._prefill_rate = 1000.0  # pyright: ignore[reportPrivateUsage]
    before = context.n_forwarded
    bench.step()
    assert context.n_forwarded - before == budget + n_streams


def test_the_wait_for_a_slot_is_told() -> None:
    bench = Bench(FakeContext(n_slots=1))
    for id in (1, 2):
        bench.submit(id, range(1, 9), max_tokens=4)
    begun = perf_counter()
    bench.run()
    first, second = (bench.finished(id).queued_s for id in (1, 2))
    assert 0 < first < second < perf_counter() - begun + first
