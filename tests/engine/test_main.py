"""The worker process: what it decides in a load, and what it says over its pipe."""

import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.config import EngineConfig
from server.engine import llama, main
from server.engine.llama import Context, Log, Model, backend
from server.engine.offload import ALL
from server.errors import ContextLengthExceeded, InvalidRequest, ModelLoadError
from server.ipc import (
    Accepted,
    Answer,
    Ask,
    Cancel,
    Delta,
    Detokenize,
    Detokenized,
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
    Ready,
    Reply,
    Shutdown,
    Step,
    Submit,
    Text,
    Tokenize,
    Tokenized,
)
from server.sampling import SamplingParams
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
                (sys.executable, "-m", "server.engine.main", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )
        self.pipe = Connection(ours.detach())
        self.pipe.send(Load("m", str(path), engine, "warning"))
        self.running = self.waiting = 0

    def message(self) -> object:
        assert self.pipe.poll(WAIT_S), "the worker says nothing"
        return self.pipe.recv()

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


def test_it_sends_nothing_while_idle(model_path: Path) -> None:
    """The check of slots and cells in between neither speaks nor kills."""
    with started(model_path) as process:
        process.loaded()
        assert not process.pipe.poll(2 * main.CHECK_AFTER_S)
        assert process.process.poll() is None
        process.submit(0, Text("One, two, three,"), max_tokens=1)
        assert isinstance(process.answer(0)[-1], Finished)


# What a load decides.


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    yield llama.backend_init()
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


@pytest.fixture(scope="module")
def model(model_path: Path, log: Log) -> Iterator[Model]:
    with Model(str(model_path), SMALL, 0, log, lambda _: None) as model:
        yield model


def test_warm_up_leaves_the_cells_empty(model: Model) -> None:
    config = SMALL.model_copy(update={"flash_attn": "off"})
    with Context(model, config, 64, None) as context:
        assert main.warm_up(context)
        assert context.cells_of(0) == context.cells_of(1) == 0


def test_plan_decides_every_auto(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 2 * 64 * 2 * model.kv_bytes_per_token(2.0, 2.0)

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    monkeypatch.setattr(main, "_has_amx", lambda: True)
    monkeypatch.setattr("server.engine.main._has_amx", lambda: False)
    config, layout = main.plan(SMALL, model)
    assert (config.flash_attn, layout.name, layout.n_ctx) == ("auto", "split", 64)
    monkeypatch.setattr("server.engine.main._has_amx", lambda: True)
    config, layout = main.plan(SMALL, model)
    assert (config.flash_attn, layout.name, layout.n_ctx) == ("off", "split", 64)
    Memory.available -= 2
    _, layout = main.plan(SMALL, model)
    assert layout.name == "unified"
    _, layout = main.plan(SMALL.model_copy(update={"kv_quant": "q8_0"}), model)
    assert layout.name == "split"
    config, layout = main.plan(EngineConfig(), model)
    assert layout.n_ctx == 8192


class Opened(Model):
    """Notes with how many layers each file is opened."""

    def __init__(self, path: str, config: EngineConfig, n_gpu_layers: int, *rest: Any):
        layers.append(n_gpu_layers)
        super().__init__(path, config, n_gpu_layers, *rest)


layers: list[int] = []


@pytest.mark.parametrize(
    ("free", "n_gpu_layers", "expected"),
    [
        ([], "auto", [0]),
        ([], 12, [0]),
        ([64 * 2**30], "auto", [0, 31]),
        ([1], "auto", [0, 0]),
        ([1], 12, [0, 12]),
        ([1], "all", [0, ALL]),
    ],
)
def test_layers_on_the_gpu(
    free: list[int],
    n_gpu_layers: int | str,
    expected: list[int],
    model_path: Path,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is a GPU, the file is opened twice: first for its sizes alone."""
    layers.clear()
    monkeypatch.setattr(llama, "gpu_memory", lambda: free)
    monkeypatch.setattr(llama, "Model", Opened)
    config = SMALL.model_copy(update={"n_gpu_layers": n_gpu_layers})

    def progress(_: float) -> None:
        return None

    load: Any = Load("m", str(model_path), config)
    quiet: Any = progress
    with main.open_model(load, log, quiet) as model:
        assert model.n_gpu_layers == expected[-1]
    assert layers == expected
