"""Many choices as one stream of events."""

import asyncio
from collections.abc import Sequence

import pytest

from server.api.answers import AnswerEvent, Answers, Echoed, End, Piece, Tokens
from server.errors import QueueFull, WorkerDied
from server.ipc import (
    Accepted,
    Delta,
    Echo,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Text,
    TokenScore,
)
from server.metrics import Metrics
from server.sampling import SamplingParams
from tests.api.scripted import MODEL, Script, ScriptedWorker, build, fail, speak

REQUEST = GenerateRequest(Text("Hi"), SamplingParams())
ACCEPTED = Accepted(0, 7)


def worker_of(script: Script) -> ScriptedWorker:
    return build(script)[1].scripted


def submit(worker: ScriptedWorker, n_prompts: int = 1, n: int = 1) -> Answers:
    return Answers(worker, [REQUEST] * (n_prompts * n), n, Metrics(lambda: {}), 0.0)


async def collect(answers: Answers) -> Sequence[AnswerEvent]:
    await answers.accepted()
    return [event async for event in answers.events()]


async def test_one_choice() -> None:
    events = await collect(submit(worker_of(speak("Hel", "lo", n_prompt=7, n_cached=3))))
    assert events == [
        Piece(0, "Hel", 1),
        Piece(0, "lo", 1, (), True),
        End(0, "stop"),
        Tokens(7, 3, 2),
    ]


async def test_text_that_is_held_back_is_no_piece() -> None:
    finished = Finished(0, "", 0, "length", 7, 0, 1)
    events = await collect(submit(worker_of(lambda _, __: [ACCEPTED, Delta(0, "", 1), finished])))
    assert events == [End(0, "length"), Tokens(7, 0, 1)]


def scored(*pieces: bytes) -> tuple[TokenScore, ...]:
    return tuple(TokenScore(i, piece, -0.5) for i, piece in enumerate(pieces))


async def test_scores_come_with_their_text_and_the_last_with_the_end() -> None:
    deltas = [Delta(0, "a", 1, scored(b"a")), Delta(0, "", 1, scored(b"b"))]
    finished = Finished(0, "", 1, "stop", 7, 0, 3, scored(b""))
    events = await collect(submit(worker_of(lambda _, __: [ACCEPTED, *deltas[:1], finished])))
    assert events[:-1] == [Piece(0, "a", 1, scored(b"a")), End(0, "stop", scored(b""))]
    # No text is no reason to lose a score.
    events = await collect(submit(worker_of(lambda _, __: [ACCEPTED, deltas[1], finished])))
    assert events[:-1] == [Piece(0, "", 1, scored(b"b")), End(0, "stop", scored(b""))]
    finished = Finished(0, "c", 1, "stop", 7, 0, 3, scored(b"c", b""))
    events = await collect(submit(worker_of(lambda _, __: [ACCEPTED, finished])))
    assert events[:-1] == [Piece(0, "c", 1, scored(b"c", b""), True), End(0, "stop")]


@pytest.mark.parametrize("n", [1, 2])
async def test_the_echo_comes_first(n: int) -> None:
    def script(_: int, __: GenerateRequest) -> list[Event]:
        return [ACCEPTED, Echo(0, scored(b"Hi")), Finished(0, "x", 1, "stop", 1, 0, 1)]

    events = await collect(submit(worker_of(script), n=n))
    for index in range(n):
        mine = [event for event in events if not isinstance(event, Tokens) and event[0] == index]
        assert mine == [
            Echoed(index, scored(b"Hi")),
            Piece(index, "x", 1, (), True),
            End(index, "stop"),
        ]


async def test_a_prompt_counts_once_and_its_cache_by_the_choice_that_found_least() -> None:
    cached = (2, 7, 0, 5)

    def script(number: int, request: GenerateRequest) -> Sequence[Event]:
        n_prompt = 7 if number < 2 else 9
        return speak("x", n_prompt=n_prompt, n_cached=cached[number])(number, request)

    *_, tokens = await collect(submit(worker_of(script), n_prompts=2, n=2))
    assert tokens == Tokens(prompt=7 + 9, cached=2 + 0, completion=4)


async def test_choices_come_as_they_are_made() -> None:
    worker = worker_of(lambda _, __: [ACCEPTED])
    answers = submit(worker, n=2)
    await answers.accepted()
    events = answers.events()
    for index, word in ((1, "a"), (0, "b"), (0, "c"), (1, "d")):
        worker.generations[index].push(Delta(0, word, 1))
        assert await anext(events) == Piece(index, word, 1)
    for index in (1, 0):
        worker.generations[index].push(Finished(0, "", 0, "stop", 7, 0, 2))
        assert await anext(events) == End(index, "stop")
    assert [event async for event in events] == [Tokens(7, 0, 4)]


async def test_no_choice_waits_for_a_talkative_one() -> None:
    worker = worker_of(lambda _, __: [ACCEPTED])
    answers = submit(worker, n=2)
    await answers.accepted()
    events = answers.events()
    worker.generations[1].push(Delta(0, "rare", 1))
    seen: list[AnswerEvent] = []
    for _ in range(6):
        worker.generations[0].push(Delta(0, "x", 1))
        seen.append(await anext(events))
    assert Piece(1, "rare", 1) in seen
    answers.close()


@pytest.mark.parametrize("n", [1, 3])
async def test_a_slow_reader_gets_larger_pieces(n: int) -> None:
    worker = worker_of(lambda _, __: [ACCEPTED])
    answers = submit(worker, n=n)
    await answers.accepted()
    events = answers.events()
    generation = worker.generations[0]
    generation.push(Delta(0, "0", 1))
    assert await anext(events) == Piece(0, "0", 1)
    for i in range(1, 100):
        generation.push(Delta(0, str(i), 1))
        await asyncio.sleep(0)
    generation.push(Finished(0, "", 0, "stop", 7, 0, 100))
    pieces: list[AnswerEvent] = []
    async for event in events:
        if isinstance(event, End):
            break
        pieces.append(event)
    assert len(pieces) <= 4
    text = "".join(piece.text for piece in pieces if isinstance(piece, Piece))
    assert text == "".join(map(str, range(1, 100)))
    answers.close()


@pytest.mark.parametrize("n", [1, 3])
async def test_a_failure_is_raised(n: int) -> None:
    answers = submit(worker_of(fail(WorkerDied("gone"), ACCEPTED)), n=n)
    await answers.accepted()
    with pytest.raises(WorkerDied):
        async for _ in answers.events():
            pass
    answers.close()


@pytest.mark.parametrize("n", [1, 3])
async def test_cancelled_cannot_reach_a_reader(n: int) -> None:
    answers = submit(worker_of(speak("x", reason="cancelled")), n=n)
    with pytest.raises(AssertionError, match="was cancelled"):
        await collect(answers)
    answers.close()


@pytest.mark.parametrize("n", [1, 2])
async def test_a_worker_that_breaks_the_contract(n: int) -> None:
    answers = submit(worker_of(lambda _, __: [ACCEPTED, ACCEPTED]), n=n)
    with pytest.raises(AssertionError, match="twice"):
        await collect(answers)
    answers.close()


async def test_a_submit_that_is_refused_closes_those_before() -> None:
    worker = worker_of(lambda _, __: [])
    worker.capacity = 2
    with pytest.raises(QueueFull):
        submit(worker, n=4)
    assert sorted(worker.cancelled) == [0, 1]


async def test_closing_twice_cancels_once() -> None:
    worker = worker_of(lambda _, __: [ACCEPTED])
    answers = submit(worker, n=2)
    answers.close()
    answers.close()
    assert worker.cancelled == [0, 1]


async def test_the_first_refusal_is_raised() -> None:
    def script(number: int, _: GenerateRequest) -> list[Event]:
        return [Failed(0, WorkerDied("gone"))] if number else [ACCEPTED]

    with pytest.raises(WorkerDied):
        await submit(worker_of(script), n=2).accepted()


async def test_tokens_are_counted_and_timed() -> None:
    worker = worker_of(speak("a", "b", "c", n_prompt=7, n_cached=3))
    metrics = Metrics(lambda: {})
    await collect(Answers(worker, [REQUEST], 1, metrics, 0.0))
    text = metrics.exposition().decode()
    for line in (
        "corral_prompt_tokens_total{%s} 7.0",
        "corral_cached_tokens_total{%s} 3.0",
        "corral_completion_tokens_total{%s} 3.0",
        "corral_time_to_first_token_seconds_count{%s} 1.0",
        # The first two words were merged, for nobody read them.
        "corral_inter_token_seconds_count{%s} 1.0",
    ):
        assert line % f'model="{MODEL}"' in text
