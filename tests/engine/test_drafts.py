"""Drafts in the engine: no answer changes, and what repeats itself takes fewer forwards."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine_config import DRAFTED_ROWS
from server.ipc import GenerateRequest
from server.sampling import SamplingParams
from tests.engine.fake import GREEDY, Bench, FakeContext, expected

ENDLESS = GREEDY.model_copy(update={"ignore_eos": True})
LOOPING = next(
    [a, b]
    for a in range(1, 60)
    for b in range(1, 60)
    if len(set(expected([a, b], 90, True)[-40:])) < 10
)
"""A prompt whose answer ends in a short loop."""


def n_forwards(bench: Bench) -> int:
    return len(bench.context.batches)


def looping(n_draft: int = 15, n_cells: int | None = None, can_trim: bool = True) -> Bench:
    context = FakeContext(4, 200, 64, n_cells, can_trim, loops=True)
    return Bench(context, n_draft=n_draft)


def test_a_loop_takes_fewer_forwards_and_stays_what_it_was() -> None:
    plain, bench = looping(n_draft=0), looping()
    for each in (plain, bench):
        each.submit(1, LOOPING, 90)
        each.run()
        assert each.text(1) == expected(LOOPING, 90, True)
    assert n_forwards(bench) < 0.6 * n_forwards(plain)
    end = bench.finished(1)
    assert end.n_completion == 90
    # The last token is never guessed, and neither is any that had a forward of its own.
    assert end.n_accepted == n_forwards(plain) - n_forwards(bench)
    assert end.n_accepted <= end.n_drafted
    assert (plain.finished(1).n_drafted, plain.finished(1).n_accepted) == (0, 0)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_draft_changes_an_answer(data: st.DataObject) -> None:
    """Whoever comes and goes beside it, with cells enough or not."""
    context = FakeContext(
        n_slots=data.draw(st.integers(1, 4)),
        n_ctx=120,
        n_batch=data.draw(st.sampled_from([4, 7, 16, 64])),
        n_cells=data.draw(st.sampled_from([None, 130, 170, 250])),
        can_trim=data.draw(st.sampled_from([True, True, True, False])),
        loops=True,
    )
    bench = Bench(context, n_draft=data.draw(st.sampled_from([1, 3, 15, 31])))
    asked: dict[int, tuple[list[int], int]] = {}
    for id in range(data.draw(st.integers(1, 5))):
        prompt = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=20))
        asked[id] = (prompt, data.draw(st.integers(1, 90)))
        bench.submit(id, *asked[id], cache_prompt=data.draw(st.booleans()))
        for _ in range(data.draw(st.integers(0, 30))):
            bench.step()
        if data.draw(st.integers(0, 5)) == 0:
            bench.engine.cancel(id)
    bench.run()
    for id, (prompt, max_tokens) in asked.items():
        end = bench.finished(id)
        answer = expected(prompt, max_tokens, True)
        assert answer.startswith(bench.text(id))
        assert end.reason == "cancelled" or bench.text(id) == answer
        assert end.n_accepted <= end.n_drafted


@pytest.mark.parametrize("n", [1, 2, 5, 20, 47, 90])
def test_an_answer_has_the_length_asked_for(n: int) -> None:
    bench = looping()
    bench.submit(1, LOOPING, n, sampling=ENDLESS)
    bench.run()
    assert (bench.finished(1).reason, bench.finished(1).n_completion) == ("length", n)


@pytest.mark.parametrize("length", [20, 25, 29, 32])
def test_a_stop_string_within_a_draft_ends_the_answer(length: int) -> None:
    whole = expected(LOOPING, 90, True)
    stop = whole[40 : 40 + length]
    bench = looping()
    bench.submit(1, LOOPING, 90, stop=(stop,))
    bench.run()
    told = bench.text(1)
    assert told == whole[: whole.find(stop)]
    assert bench.finished(1).reason == "stop"
    # What was forwarded behind it is not kept for others.
    again = LOOPING + [ord(character) - 32 for character in told] + [3, 4]
    bench.submit(2, again, 5)
    bench.run()
    assert bench.text(2) == expected(again, 5, True)


def test_a_seed_draws_the_same_with_drafts_and_without() -> None:
    sampling = SamplingParams(temperature=0.02, seed=11, ignore_eos=True)
    texts: list[str] = []
    for bench in (looping(n_draft=0), looping()):
        bench.submit(1, LOOPING, 90, sampling=sampling)
        bench.run()
        texts.append(bench.text(1))
    assert texts[0] == texts[1]
    assert bench.finished(1).n_accepted > 20


def test_each_token_of_a_draft_has_its_score() -> None:
    bench = looping()
    bench.add(1, GenerateRequest(tuple(LOOPING), ENDLESS, 60, logprobs=2))
    bench.run()
    scores = [score for event in bench.events for score in getattr(event, "scores", ())]
    assert bench.finished(1).n_accepted > 10
    assert len(scores) == 60
    assert "".join(score.piece.decode() for score in scores) == bench.text(1)
    assert all(score.top[0][0] == score.id for score in scores)


def test_nobody_pays_for_the_drafts_of_another() -> None:
    """A stream that goes its own way beside one that repeats itself: one token each per step."""
    bench = looping()
    bench.submit(1, LOOPING, 90, sampling=ENDLESS)
    wild = SamplingParams(temperature=5, seed=3, ignore_eos=True)
    bench.submit(2, LOOPING, 90, sampling=wild, cache_prompt=False)
    bench.run()
    assert bench.finished(1).n_drafted == bench.finished(2).n_drafted == 0
    assert all(len(batch) == 2 for batch in bench.context.batches[1:])


def test_two_that_repeat_themselves_get_as_many_each() -> None:
    bench = looping()
    for id in (1, 2):
        bench.submit(id, LOOPING, 90, sampling=ENDLESS, cache_prompt=False)
    bench.run()
    assert [bench.text(id) for id in (1, 2)] == [bench.text(1)] * 2
    drafted = [batch for batch in bench.context.batches if len(batch) > 2 and len(set(batch)) == 2]
    assert len(drafted) > 2
    for batch in drafted[1:]:
        assert len(batch) <= DRAFTED_ROWS
        assert batch == sorted(batch)
        assert batch.count(batch[0]) == batch.count(batch[-1])


def test_no_drafts_while_a_prompt_is_computed() -> None:
    bench = looping()
    stream = bench.submit(1, LOOPING, 190, sampling=ENDLESS)
    while stream.n_accepted < 20:
        bench.step()
    before, n_steps = stream.n_drafted, 0
    newcomer = bench.submit(2, [1 + i % 50 for i in range(150)], 1)
    while not newcomer.n_completion:
        bench.engine._prefill_rate = 1.0  # pyright: ignore[reportPrivateUsage]
        bench.step()
        n_steps += 1
    assert n_steps > 1
    assert stream.n_drafted == before
    bench.run()
    assert stream.n_drafted > before


def test_a_guess_drives_nothing_away() -> None:
    """The cells suffice for a kept prefix and what there is of an answer, not for a draft too."""
    bench = looping(n_cells=30 + 60)
    bench.submit(1, [40 + i % 20 for i in range(30)], 1)
    bench.run()
    stream = bench.submit(2, LOOPING, 190, sampling=ENDLESS)
    while stream.n_tokens < 60:
        bench.step()
        assert 30 in [len(slot.kept) for slot in bench.kv.slots]
    assert stream.n_accepted > 10
    bench.engine.cancel(2)
    bench.run()


def test_where_nothing_can_be_dropped_nothing_is_guessed() -> None:
    bench = looping(can_trim=False)
    bench.submit(1, LOOPING, 60, sampling=ENDLESS)
    bench.run()
    assert bench.finished(1).n_drafted == 0
