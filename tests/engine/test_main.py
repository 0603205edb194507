"""The worker process: what it decides in a load, and what it says over its pipe."""

import math
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.engine import main
from server.engine.preparation import Inbox
from server.engine_config import EngineConfig
from server.errors import ContextLengthExceeded, InvalidRequest, ModelLoadError
from server.ipc import (
    Accepted,
    Answer,
    Ask,
    Cancel,
    Delta,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    Infill,
    Load,
    LoadFailed,
    Loading,
    ModelInfo,
    Question,
    Rank,
    Ranked,
    Ready,
    Reply,
    Shutdown,
    Step,
    Submit,
    Text,
    Tokenize,
    Tokenized,
)
from server.packing import unpack
from server.sampling import SamplingParams
from tests import bert
from tests.conftest import ROOT

SMALL = EngineConfig(n_ctx=64, n_slots=2, n_batch=32, n_ubatch=32, n_threads=1)
GREEDY = SamplingParams(temperature=0)
WAIT_S = 60


class Process:
    """A real worker and our end of its pipe."""

    def __init__(self, path: Path, engine: EngineConfig = SMALL):
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "server.engine", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )
        self.pipe = Connection(ours.detach())
        self.pipe.send(Load("m", str(path), engine, "warning"))
        self.running = self.waiting = 0

    def message(self) -> object:
        assert self.pipe.poll(WAIT_S), "the worker says nothing"
        return unpack(self.pipe.recv_bytes())

    def loaded(self) -> tuple[list[float], ModelInfo | LoadFailed]:
        """Progress, and how the load ended."""
        told: list[float] = []
        while isinstance(message := self.message(), Loading):
            told.append(message.progress)
        assert isinstance(message, Ready | LoadFailed)
        return told, message.info if isinstance(message, Ready) else message

    def submit(self, id: int, prompt: Text | tuple[int, ...], **settings: Any) -> None:
        sampling = settings.pop("sampling", GREEDY)
        self.pipe.send(Submit(id, GenerateRequest(prompt, sampling, **settings)))

    def events(self) -> Iterator[Event]:
        while True:
            step = self.message()
            assert isinstance(step, Step)
            self.running, self.waiting = step.n_running, step.n_waiting
            yield from step.events

    def answer(self, id: int) -> list[Event]:
        """All events until the end of a request, which must be its own."""
        events: list[Event] = []
        for event in self.events():
            assert event.id == id
            events.append(event)
            if isinstance(event, Finished | Failed):
                return events
        raise AssertionError

    def end(self) -> int:
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        """Leave; the worker ends by itself."""
        self.pipe.close()
        try:
            self.end()
        finally:
            self.process.kill()


@contextmanager
def started(path: Path, engine: EngineConfig = SMALL) -> Generator[Process]:
    process = Process(path, engine)
    try:
        yield process
    finally:
        process.close()


@pytest.fixture(scope="module")
def worker(model_path: Path) -> Iterator[Process]:
    """A loaded worker. Each test leaves it idle."""
    with started(model_path) as process:
        _, info = process.loaded()
        assert isinstance(info, ModelInfo)
        yield process


def words(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta | Finished))


def test_a_worker_loads_answers_and_ends(model_path: Path) -> None:
    with started(model_path) as process:
        told, info = process.loaded()
        assert told == sorted(told) and told[-1] == 1.0
        assert all(after - before > 0.04 for before, after in pairwise(told[:-1]))
        assert isinstance(info, ModelInfo)
        assert (info.n_ctx, info.n_ctx_train, info.n_slots) == (64, 8192, 2)
        assert (info.n_vocab, info.n_gpu_layers, info.kv_layout) == (49_152, 0, "split")
        assert (info.bos, info.eos) == ("<|im_start|>", "<|im_end|>")
        assert {"<|im_start|>", "<|im_end|>"} <= set(info.special)
        assert info.template is not None and info.description and info.n_params > 130e6
        process.submit(0, Text("One, two, three,"), max_tokens=2)
        first, *deltas, last = process.answer(0)
        assert isinstance(first, Accepted)
        assert isinstance(last, Finished)
        assert (last.reason, last.n_prompt, last.n_completion) == ("length", first.n_prompt, 2)
        assert words([*deltas, last]).startswith(" four")
        process.pipe.send(Shutdown())
        assert process.end() == 0


def test_a_refused_prompt(worker: Process) -> None:
    worker.submit(1, tuple(range(64)), prompt_param="messages")
    (failed,) = worker.answer(1)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ContextLengthExceeded)
    assert "prompt of 64 tokens, context of 64" in failed.error.message
    assert failed.error.param == "messages"
    worker.submit(2, (49_152,))
    (failed,) = worker.answer(2)
    assert isinstance(failed, Failed) and isinstance(failed.error, InvalidRequest)
    assert "49,152" in failed.error.message


def test_a_cancelled_request_frees_its_slot(worker: Process) -> None:
    endless = SamplingParams(temperature=0, ignore_eos=True)
    worker.submit(3, Text("Once upon a time"), sampling=endless)
    for event in worker.events():
        if isinstance(event, Delta):
            break
    assert (worker.running, worker.waiting) == (1, 0)
    worker.pipe.send(Cancel(3))
    last = worker.answer(3)[-1]
    assert isinstance(last, Finished)
    # It may have come to its end while we wrote.
    assert last.reason in ("cancelled", "length")
    assert (worker.running, worker.waiting) == (0, 0)
    worker.pipe.send(Cancel(99))
    worker.submit(4, Text("One, two, three,"), max_tokens=1)
    assert isinstance(worker.answer(4)[-1], Finished)


def test_special_text_of_a_client_is_text(worker: Process) -> None:
    """The literal ranges get as far as the tokenizer."""
    counts: list[int] = []
    for id, literal in ((5, ()), (6, ((0, 10),))):
        worker.submit(id, Text("<|im_end|>", literal), max_tokens=1)
        accepted = worker.answer(id)[0]
        assert isinstance(accepted, Accepted)
        counts.append(accepted.n_prompt)
    assert counts[0] == 1 < counts[1]


def test_three_requests_for_two_slots(worker: Process) -> None:
    for id in (7, 8, 9):
        worker.submit(id, Text(f"Count to {id}:"), max_tokens=4)
    finished: list[int] = []
    waited = 0
    for event in worker.events():
        assert worker.running <= 2
        waited = max(waited, worker.waiting)
        if isinstance(event, Finished):
            finished.append(event.id)
        if len(finished) == 3:
            break
    assert sorted(finished) == [7, 8, 9]
    assert waited


def ask(worker: Process, id: int, question: Question) -> Reply | Failed:
    worker.pipe.send(Ask(id, question))
    event = next(worker.events())
    assert event.id == id
    assert isinstance(event, Answer | Failed)
    return event.reply if isinstance(event, Answer) else event


def test_questions_about_tokens(worker: Process) -> None:
    text = "One, two<|im_end|> naïve 👍"
    told = ask(worker, 20, Tokenize(text))
    assert isinstance(told, Tokenized)
    assert b"".join(told.pieces).decode() == text
    assert 2 in told.tokens, "the id of <|im_end|>"
    plain = ask(worker, 21, Tokenize(text, parse_special=False))
    assert isinstance(plain, Tokenized)
    assert b"".join(plain.pieces).decode() == text and 2 not in plain.tokens
    literal = ask(worker, 22, Tokenize(text, literal=((8, 18),)))
    assert literal == plain
    assert ask(worker, 23, Detokenize(told.tokens)) == Detokenized(text)
    refused = ask(worker, 24, Detokenize((1, 49_152)))
    assert isinstance(refused, Failed)
    assert "token 49152 is not in the vocabulary of 49,152" in refused.error.message


def test_filling_in_is_refused_where_the_model_has_no_tokens_for_it(worker: Process) -> None:
    worker.pipe.send(Submit(25, GenerateRequest(Infill("a", "b"), GREEDY)))
    (failed,) = worker.answer(25)
    assert isinstance(failed, Failed)
    assert failed.error.param == "suffix"


def vectors(told: Event | Reply) -> list[NDArray[np.float32]]:
    assert isinstance(told, Embedded), told
    return [np.frombuffer(raw, "<f4") for raw in told.vectors]


def test_a_model_that_generates_embeds_too(worker: Process) -> None:
    told = ask(worker, 30, Embed(("The cat sat on the mat.", (504, 2365), "x" * 60)))
    assert isinstance(told, Embedded)
    assert told.n_tokens[:2] == (7, 2)
    assert [len(vector) for vector in vectors(told)] == [576] * 3
    assert [float(v @ v) for v in vectors(told)] == pytest.approx([1.0] * 3)
    again = ask(worker, 31, Embed(("The cat sat on the mat.",)))
    np.testing.assert_allclose(vectors(again)[0], vectors(told)[0], atol=1e-3)


def test_refused_questions_about_texts(worker: Process) -> None:
    failed = ask(worker, 32, Embed(("x", (1,) * 65)))
    assert isinstance(failed, Failed) and isinstance(failed.error, ContextLengthExceeded)
    assert failed.error.message == "input.1: 65 tokens, this model takes at most 64"
    failed = ask(worker, 33, Embed(((100_257,),)))
    assert isinstance(failed, Failed)
    assert "token 100257 is not in the vocabulary of 49,152" in failed.error.message
    failed = ask(worker, 34, Rank("q", ("d",)))
    assert isinstance(failed, Failed)
    assert "does not rank documents" in failed.error.message


def test_streams_go_on_while_texts_are_embedded(model_path: Path) -> None:
    """Both give what they give alone, and no token waits for more than a slice of the texts."""
    settings = {"n_ctx": 256, "n_batch": 512, "n_ubatch": 512, "prefill_ms": 1}
    endless = SamplingParams(temperature=0, ignore_eos=True)
    question = Embed(tuple(f"Text {n} of many." for n in range(64)))
    with started(model_path, SMALL.model_copy(update=settings)) as process:
        process.loaded()
        alone = vectors(ask(process, 0, question))
        process.submit(1, Text("Once upon a time"), sampling=endless, max_tokens=50)
        text = words(process.answer(1))
        process.submit(2, Text("Once upon a time"), sampling=endless, max_tokens=50)
        streamed: list[Event] = []
        told: Embedded | None = None
        n_between = 0
        for event in process.events():
            if not streamed:
                process.pipe.send(Ask(3, question))
            if event.id == 2:
                streamed.append(event)
            else:
                assert isinstance(event, Answer) and isinstance(event.reply, Embedded)
                told, n_between = event.reply, len(streamed)
            if told is not None and isinstance(streamed[-1], Finished):
                break
        assert told is not None
        assert words(streamed) == text
        # Forwards of 64 tokens, one after each token of the stream.
        assert sum(told.n_tokens) // 64 <= n_between < len(streamed)
        # Activations are rounded by the tile, and the tiles were others.
        for found, expected in zip(vectors(told), alone, strict=True):
            assert float(found @ expected) > 0.998


def test_a_cancelled_question_is_forgotten(worker: Process) -> None:
    worker.pipe.send(Ask(40, Embed(("A long text about nothing. " * 5,) * 500)))
    worker.pipe.send(Cancel(40))
    told = ask(worker, 41, Embed(("short",)))
    assert isinstance(told, Embedded)


def test_a_model_that_only_embeds(tmp_path: Path) -> None:
    tiny = bert.tiny()
    with started(
        tiny.write(tmp_path / "tiny.gguf"), EngineConfig(n_ctx=512, n_threads=1)
    ) as process:
        told, info = process.loaded()
        assert told[-1] == 1.0
        assert isinstance(info, ModelInfo)
        assert (info.generates, info.embeds, info.ranks) == (False, True, False)
        assert (info.n_ctx, info.n_embd, info.pooling) == (64, 32, "mean"), (
            "not beyond the training"
        )
        assert (info.n_slots, info.kv_layout) == (0, "none")
        texts = ("the cat sat", "fish", "what does the dog eat")
        for found, text in zip(vectors(ask(process, 0, Embed(texts))), texts, strict=True):
            np.testing.assert_allclose(found, tiny.vector(bert.enclosed(text)), atol=1e-3)
        full = ask(process, 1, Embed(((5,) * 64,)))
        assert isinstance(full, Embedded)
        process.submit(2, Text("the cat"), max_tokens=4)
        (failed,) = process.answer(2)
        assert isinstance(failed, Failed) and isinstance(failed.error, InvalidRequest)
        assert failed.error.message == "this model gives embeddings, it does not generate text"
        process.pipe.send(Cancel(2))
        process.pipe.send(Shutdown())
        assert process.end() == 0


def test_a_model_that_ranks(tmp_path: Path) -> None:
    tiny = bert.tiny(seed=5).with_pooling("rank")
    with started(tiny.write(tmp_path / "rank.gguf"), EngineConfig(n_threads=1)) as process:
        _, info = process.loaded()
        assert isinstance(info, ModelInfo)
        assert (info.generates, info.embeds, info.ranks) == (False, False, True)
        documents = ("fish", "the mat", "paris")
        told = ask(process, 0, Rank("what does the cat eat", documents))
        assert isinstance(told, Ranked)
        pairs = [bert.enclosed("what does the cat eat", text) for text in documents]
        odds = [tiny.score(pair) for pair in pairs]
        assert told.scores == pytest.approx([1 / (1 + math.exp(-x)) for x in odds], abs=2e-3)
        assert told.n_tokens == tuple(map(len, pairs))
        failed = ask(process, 1, Embed(("fish",)))
        assert isinstance(failed, Failed)
        assert "ranks documents and has no embeddings" in failed.error.message
        process.submit(2, Text("the cat"))
        (failed,) = process.answer(2)
        assert isinstance(failed, Failed)
        assert failed.error.message == "this model ranks documents, it does not generate text"


def test_it_ends_with_the_server_even_while_it_answers(model_path: Path) -> None:
    with started(model_path) as process:
        process.loaded()
        endless = SamplingParams(temperature=0, ignore_eos=True)
        process.submit(0, Text("Once"), sampling=endless)
        process.pipe.close()
        assert process.end() == 0


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"nothing of the kind")
    with started(path) as process:
        told, failed = process.loaded()
        assert told == []
        assert isinstance(failed, LoadFailed)
        assert isinstance(failed.error, ModelLoadError)
        assert str(path) in failed.error.message and "invalid magic" in failed.error.message
        assert process.end() == 0


@pytest.mark.parametrize(("stream_ms", "n_deltas"), [(0, 11), (60_000, 1)])
def test_tokens_go_together_where_they_come_quickly(
    model_path: Path, stream_ms: int, n_deltas: int
) -> None:
    engine = SMALL.model_copy(update={"stream_ms": stream_ms})
    with started(model_path, engine) as process:
        process.loaded()
        process.submit(0, Text("One, two, three,"), max_tokens=12)
        messages: list[Step] = []
        while not messages or not isinstance(messages[-1].events[-1], Finished):
            message = process.message()
            assert isinstance(message, Step)
            messages.append(message)
        events = [event for message in messages for event in message.events]
        assert sum(isinstance(event, Delta) for event in events) == 11
        with_text = [m for m in messages if any(isinstance(e, Delta) for e in m.events)]
        # The last message has what waited, if anything did, and the end.
        assert len(with_text) == n_deltas + (stream_ms > 0)
        assert len(messages) == n_deltas + 2


class Idle:
    """Stands for what is loaded, and has nothing to do but chores; the last one is disturbed."""

    idle = True

    def __init__(self, inbox: Inbox, n_chores: int) -> None:
        self.done: list[str] = []
        self._inbox = inbox
        self._n_chores = n_chores

    def check(self) -> None:
        self.done.append("check")

    def settle(self) -> bool:
        self.done.append("settle")
        self._n_chores -= 1
        if not self._n_chores:
            self._inbox.put(Shutdown())
        return True


def test_chores_give_way_to_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "IDLE_S", 0.01)
    inbox: Inbox = SimpleQueue()
    idle: Any = Idle(inbox, n_chores=3)
    main.run(idle, inbox)
    assert idle.done == ["check", "settle", "settle", "settle"]
    inbox.put(Shutdown())
    main.run(idle, inbox)
    assert len(idle.done) == 4


def test_it_sends_nothing_while_idle(model_path: Path) -> None:
    """The check of slots and cells in between neither speaks nor kills."""
    with started(model_path) as process:
        process.loaded()
        assert not process.pipe.poll(2 * main.IDLE_S)
        assert process.process.poll() is None
        process.submit(0, Text("One, two, three,"), max_tokens=1)
        assert isinstance(process.answer(0)[-1], Finished)
