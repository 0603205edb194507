"""The worker process: loads one GGUF and runs its engine until the pipe closes.

Four threads. One reads commands, two make sequences and jobs of them (the tokenizer is
thread-safe); the main one runs engine and embedder and alone writes the pipe.
"""

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from server.engine import llama
from server.engine.copies import wait_for_load
from server.engine.embedder import Embedder
from server.engine.engine import Engine
from server.engine.job import Job, Limits
from server.engine.kv import KVCells
from server.engine.opening import Progress, describe, open_model, plan, probe, warm_up
from server.engine.outbox import Outbox
from server.engine.preparation import Commands, Inbox, Preparation, Prepared
from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.engine_config import EngineConfig
from server.errors import CorralError
from server.ipc import (
    Answer,
    Cancel,
    Command,
    Failed,
    Load,
    LoadFailed,
    Loading,
    ModelInfo,
    Ready,
    Shutdown,
    UseThreads,
)
from server.layout import Layout

log = logging.getLogger(__name__)

IDLE_S = 0.5
"""Seconds without work before slots and cells are counted, and memory is put in order."""


def main() -> None:
    """Serve the pipe whose number is the last argument."""
    # Who stops a service often tells all its processes; running requests are the server's to end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe = Connection(int(sys.argv[-1]))
    try:
        pipe, load = wait_for_load(pipe)
    except (EOFError, OSError):
        return  # the server has gone, and never needed us
    logging.basicConfig(
        level=load.log_level.upper(),
        format=f"%(asctime)s %(levelname)-7s {load.model}: %(message)s",
        datefmt="%H:%M:%S",
    )
    with ExitStack() as stack:
        try:
            loaded = load_engine(pipe, load, stack)
        except CorralError as error:
            pipe.send(LoadFailed(error))
            return
        serve(pipe, loaded)
        # The system takes all of it back at once, where we would give it back piece by piece.
        os._exit(0)


@dataclass(frozen=True)
class Loaded:
    """A model that can answer."""

    context: llama.Context | None
    """None, as its engine, if the model does not generate."""
    engine: Engine | None
    embedder: Embedder
    outbox: Outbox
    vocabulary: Vocabulary
    info: ModelInfo
    limits: Limits

    @property
    def idle(self) -> bool:
        """Nothing is left to do."""
        return (self.engine is None or self.engine.idle) and self.embedder.idle

    def step(self) -> None:
        """A step of what generates, and one of what embeds, short if the former is at work."""
        busy = self.engine is not None and not self.engine.idle
        if self.engine is not None and busy:
            self.engine.step()
        if not self.embedder.idle:
            self.outbox.flush()
        self.embedder.step(busy)

    def cancel(self, id: int) -> None:
        """End whatever has this id."""
        self.embedder.cancel(id)
        if self.engine is not None:
            self.engine.cancel(id)

    def use_threads(self, n: int) -> None:
        """Compute with so many from now on."""
        if self.context is not None:
            self.context.use_threads(n)
        self.embedder.use_threads(n)

    def settle(self) -> bool:
        """Do a little of what makes later steps faster; False when all is done. Only when idle."""
        return self.context is not None and self.context.settle()

    def check(self) -> None:
        """Raises AssertionError where something got lost. Only when idle."""
        if self.engine is not None:
            self.engine.check()


def load_engine(pipe: Connection, load: Load, stack: ExitStack) -> Loaded:
    """Open model and contexts, which `stack` closes. Raises ModelLoadError or EngineError."""
    captured = llama.backend_init()
    model = stack.enter_context(open_model(load, captured, Progress(pipe)))
    vocabulary = Vocabulary(model.vocabulary)
    # Beside the clearing of the cells.
    looking = threading.Thread(target=vocabulary.look_through, daemon=True)
    looking.start()
    stack.callback(looking.join)  # whatever fails, the model outlives it
    outbox = Outbox(_sender(pipe), load.engine.stream_ms)
    config, layout = plan(load.engine, model)
    context = engine = None
    if model.generates:
        context = stack.enter_context(llama.Context(model, config, layout.n_ctx, layout.n_cells))
    pipe.send(Loading(1.0))
    if context is None:
        probe(model, load.engine)
        log.info("%s, embeds up to %d tokens", model.description, layout.n_ctx)
    else:
        engine = _engine(context, vocabulary, config, layout, outbox)
        outbox.queues = engine.scheduler
        log.info(
            "%s, %d slots of %d tokens, %s cells (%s)",
            model.description, context.n_slots, context.n_ctx, layout.name, layout.reason,
        )  # fmt: skip
    embedder = Embedder(
        # Not with the attention chosen for streams: texts side by side do better with flash.
        lambda n_cells: llama.EmbeddingContext(model, load.engine, n_cells),
        model.pooling,
        layout.n_ctx,
        load.engine.ubatch,
        config.prefill_ms,
        config.max_waiting,
        outbox.put,
    )
    looking.join()
    return Loaded(
        context,
        engine,
        stack.enter_context(embedder),
        outbox,
        vocabulary,
        describe(model, vocabulary, layout, context),
        Limits(model.embeds, model.ranks, layout.n_ctx, model.rerank_template),
    )


def _engine(
    context: llama.Context,
    vocabulary: Vocabulary,
    config: EngineConfig,
    layout: Layout,
    outbox: Outbox,
) -> Engine:
    can_trim = warm_up(context)
    return Engine(
        context,
        vocabulary,
        KVCells(context, layout.name == "unified", can_trim, config.prefix_cache),
        prefill_ms=config.prefill_ms,
        n_ubatch=config.ubatch,
        n_draft=config.n_draft,
        one_by_one=layout.name == "split",
        emit=outbox.put,
        flush=outbox.flush,
    )


def serve(pipe: Connection, loaded: Loaded) -> None:
    """Say that the model is ready, and answer until told to stop."""
    inbox: Inbox = SimpleQueue()
    commands: Commands = SimpleQueue()
    preparation = Preparation(loaded.vocabulary, loaded.info, loaded.limits, inbox)
    for target, args in (
        (_receive, (pipe, commands)),
        (preparation.read, (commands,)),
        (preparation.compile, ()),
    ):
        threading.Thread(target=_or_die(target), args=args, daemon=True).start()
    pipe.send(Ready(loaded.info))
    # What lives now lives for good: the collector need not look at it again.
    gc.freeze()
    gc.enable()
    run(loaded, inbox)


def run(loaded: Loaded, inbox: Inbox) -> None:
    """Step while there is work, sleep while there is none, return at Shutdown."""
    while True:
        if loaded.idle:
            command = _wait(loaded, inbox)
        else:
            try:
                command = inbox.get_nowait()
            except Empty:
                loaded.step()
                continue
        match command:
            case Sequence():
                assert loaded.engine is not None
                loaded.engine.add(command)
            case Job():
                loaded.embedder.add(command)
            case Cancel(id=id):
                loaded.cancel(id)
            case Answer() | Failed():
                loaded.outbox.put([command])
            case UseThreads(n=n):
                loaded.use_threads(n)
            case Shutdown():
                return


def _wait(loaded: Loaded, inbox: Inbox) -> Prepared:
    """The next command. Until it comes, what is best done while nobody waits for an answer."""
    with suppress(Empty):
        return inbox.get(timeout=IDLE_S)
    loaded.check()
    while loaded.settle():
        with suppress(Empty):
            return inbox.get_nowait()
    return inbox.get()


def _receive(pipe: Connection, commands: Commands) -> None:
    """Empty the pipe, so that the server never waits for us, until the server ends."""
    while True:
        try:
            command: Command = pipe.recv()
        except (EOFError, OSError):
            # The server is gone: nobody is left to answer, not even in the middle of a step.
            os._exit(0)
        assert not isinstance(command, Load), "a worker loads one model in its life"
        commands.put(command)


def _or_die(target: Callable[..., None]) -> Callable[..., None]:
    """A thread's function that takes the process with it: a deaf worker helps nobody."""

    def run_or_die(*args: Any) -> None:
        try:
            target(*args)
        except Exception:
            log.exception("the worker ends")
            os._exit(1)

    return run_or_die


def _sender(pipe: Connection) -> Callable[[bytes], None]:
    """Sends packed steps; ends the process if the server has gone, as this thread sees it first."""

    def send(packed: bytes) -> None:
        try:
            pipe.send_bytes(packed)
        except BrokenPipeError:
            os._exit(0)

    return send
