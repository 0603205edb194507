"""One request's events: their order, what is merged, and how they end."""

import asyncio

import pytest

from server.errors import CorralError, InvalidRequest, WorkerDied
from server.ipc import (
    Accepted,
    Answer,
    Delta,
    Detokenized,
    Echo,
    Event,
    Failed,
    Finished,
    TokenScore,
)
from server.pool.generation import Generation

FINISHED = Finished(1, "!", 1, "stop", 3, 0, 4)


class Cancelled:
    """Counts."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> None:
        self.n += 1


@pytest.fixture
def cancelled() -> Cancelled:
    return Cancelled()


@pytest.fixture
def generation(cancelled: Cancelled) -> Generation:
    return Generation(cancelled)


def push(generation: Generation, *events: Event) -> None:
    for event in events:
        generation.push(event)


async def rest(generation: Generation) -> list[Echo | Delta | Finished]:
    return [event async for event in generation]


async def test_events_in_order(generation: Generation) -> None:
    push(generation, Accepted(1, 3))
    assert await generation.accepted() == Accepted(1, 3)
    push(generation, Delta(1, "a", 1))
    events = aiter(generation)
    assert await anext(events) == Delta(1, "a", 1)
    push(generation, Delta(1, "b", 2), FINISHED)
    assert [event async for event in events] == [Delta(1, "b", 2), FINISHED]


async def test_unread_deltas_are_merged(generation: Generation) -> None:
    push(generation, Accepted(1, 3), Delta(1, "a", 1), Delta(1, "", 2), Delta(1, "c", 1), FINISHED)
    await generation.accepted()
    assert await rest(generation) == [Delta(1, "ac", 4), FINISHED]


async def test_scores_are_merged_too(generation: Generation) -> None:
    scores = [TokenScore(i, b"x", -0.5 * i) for i in range(3)]
    echo = Echo(1, (scores[0],))
    push(generation, Accepted(1, 3), echo)
    push(generation, Delta(1, "a", 1, (scores[1],)), Delta(1, "b", 1, (scores[2],)), FINISHED)
    await generation.accepted()
    assert await rest(generation) == [echo, Delta(1, "ab", 2, (scores[1], scores[2])), FINISHED]


async def test_the_end_is_not_merged(generation: Generation) -> None:
    push(generation, Accepted(1, 3), FINISHED)
    await generation.accepted()
    assert await rest(generation) == [FINISHED]


async def test_a_waiting_reader_is_woken(generation: Generation) -> None:
    reader = asyncio.create_task(generation.accepted())
    await asyncio.sleep(0)
    assert not reader.done()
    push(generation, Accepted(1, 3))
    assert await reader == Accepted(1, 3)
    events = asyncio.create_task(rest(generation))
    await asyncio.sleep(0)
    push(generation, Delta(1, "a", 1))
    await asyncio.sleep(0)
    push(generation, Delta(1, "b", 1), FINISHED)
    assert await events == [Delta(1, "a", 1), Delta(1, "b", 1), FINISHED]


@pytest.mark.parametrize("error", [InvalidRequest("no", "prompt"), WorkerDied("gone")])
async def test_a_refusal_is_raised_first(generation: Generation, error: CorralError) -> None:
    push(generation, Failed(1, error))
    with pytest.raises(type(error)) as caught:
        await generation.accepted()
    assert caught.value is error


async def test_a_failure_is_raised_after_what_came_before(generation: Generation) -> None:
    push(generation, Accepted(1, 3), Delta(1, "a", 1))
    generation.fail(WorkerDied("gone"))
    await generation.accepted()
    events = aiter(generation)
    assert await anext(events) == Delta(1, "a", 1)
    with pytest.raises(WorkerDied, match="gone"):
        await anext(events)


async def test_only_the_first_end_counts(generation: Generation, cancelled: Cancelled) -> None:
    push(generation, Accepted(1, 3), FINISHED)
    generation.fail(WorkerDied("gone"))
    await generation.accepted()
    assert await rest(generation) == [FINISHED]
    generation.close()
    assert cancelled.n == 0


async def test_a_failed_one_is_not_cancelled(generation: Generation, cancelled: Cancelled) -> None:
    generation.fail(WorkerDied("gone"))
    generation.fail(WorkerDied("again"))
    with pytest.raises(WorkerDied, match="gone"):
        await generation.accepted()
    generation.close()
    assert cancelled.n == 0


async def test_close_cancels_once(generation: Generation, cancelled: Cancelled) -> None:
    push(generation, Accepted(1, 3), Delta(1, "a", 1))
    generation.close()
    generation.close()
    assert cancelled.n == 1
    generation.fail(WorkerDied("gone"))
    await generation.accepted()
    assert await anext(aiter(generation)) == Delta(1, "a", 1)


ANSWER = Answer(1, Detokenized("a"))


@pytest.mark.parametrize("event", [Delta(1, "a", 1), Echo(1, ()), FINISHED, ANSWER])
async def test_a_worker_that_forgets_to_accept(generation: Generation, event: Event) -> None:
    push(generation, event)
    with pytest.raises(AssertionError, match="before Accepted"):
        await generation.accepted()


async def test_a_worker_that_accepts_twice(generation: Generation) -> None:
    push(generation, Accepted(1, 3), Accepted(1, 3))
    await generation.accepted()
    with pytest.raises(AssertionError, match="accepted a request twice"):
        await rest(generation)


async def test_a_worker_that_answers_what_nobody_asked(generation: Generation) -> None:
    push(generation, Accepted(1, 3), ANSWER)
    await generation.accepted()
    with pytest.raises(AssertionError, match="was not asked"):
        await rest(generation)
