"""The worker process: loads one GGUF and runs its engine until the pipe closes.

Three threads. One reads commands, one makes sequences of them (the tokenizer is thread-safe); the
main one runs the engine and alone writes the pipe.
"""

import gc
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, assert_never

import psutil

from server.config import EngineConfig
from server.engine import llama
from server.engine.batch import Batch
from server.engine.engine import Engine
from server.engine.kv import KVCells
from server.engine.layout import KV_BYTES, Layout, choose_flash_attn, choose_layout, choose_n_ctx
from server.engine.offload import choose_gpu_layers
from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.errors import CorralError, InvalidRequest
from server.ipc import (
    Answer,
    Ask,
    Cancel,
    Command,
    Detokenize,
    Detokenized,
    Event,
    Failed,
    Load,
    LoadFailed,
    Loading,
    Message,
    ModelInfo,
    Ready,
    Shutdown,
    Step,
    Submit,
    Text,
    Tokenize,
    Tokenized,
)

log = logging.getLogger(__name__)

Inbox = SimpleQueue[Sequence | Ask | Cancel | Answer | Failed | Shutdown]
Commands = SimpleQueue[Submit | Ask | Cancel | Shutdown]

CHECK_AFTER_S = 0.5
"""Seconds of idleness before slots and cells are counted."""


def main() -> None:
    """Serve the pipe whose number is the last argument."""
    # Who stops a service often tells all its processes; running requests are the server's to end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe = Connection(int(sys.argv[-1]))
    load = pipe.recv()
    assert isinstance(load, Load)
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


@dataclass(frozen=True)
class Loaded:
    """A model that can answer."""

    engine: Engine
    outbox: "_Outbox"
    vocabulary: Vocabulary
    info: ModelInfo


def load_engine(pipe: Connection, load: Load, stack: ExitStack) -> Loaded:
    """Open model and context, which `stack` closes. Raises ModelLoadError or EngineError."""
    captured = llama.backend_init()
    model = stack.enter_context(open_model(load, captured, _Progress(pipe)))
    vocabulary = Vocabulary(model.vocabulary)
    config, layout = plan(load.engine, model)
    context = stack.enter_context(llama.Context(model, config, layout.n_ctx, layout.n_cells))
    pipe.send(Loading(1.0))
    can_trim = warm_up(context)
    log.info(
        "%s, %d slots of %d tokens, %s cells (%s)",
        model.description, context.n_slots, context.n_ctx, layout.name, layout.reason,
    )  # fmt: skip
    outbox = _Outbox(pipe)
    engine = Engine(
        context,
        vocabulary,
        KVCells(context, layout.name == "unified", can_trim, config.prefix_cache),
        prefill_ms=config.prefill_ms,
        n_ubatch=config.n_ubatch,
        one_by_one=layout.name == "split",
        emit=outbox.put,
    )
    outbox.engine = engine
    return Loaded(engine, outbox, vocabulary, _info(model, vocabulary, context, layout))


def serve(pipe: Connection, loaded: Loaded) -> None:
    """Say that the model is ready, and answer until told to stop."""
    inbox: Inbox = SimpleQueue()
    commands: Commands = SimpleQueue()
    vocabulary, n_ctx = loaded.vocabulary, loaded.info.n_ctx
    for target, args in (
        (_receive, (pipe, commands)),
        (_prepare, (commands, inbox, vocabulary, n_ctx)),
    ):
        threading.Thread(target=_or_die(target), args=args, daemon=True).start()
    pipe.send(Ready(loaded.info))
    # What lives now lives for good: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    run(loaded.engine, inbox, loaded.outbox)


def run(engine: Engine, inbox: Inbox, outbox: "_Outbox") -> None:
    """Step while there is work, sleep while there is none, return at Shutdown."""
    checked = False
    while True:
        try:
            command = inbox.get(block=engine.idle, timeout=None if checked else CHECK_AFTER_S)
        except Empty:
            if engine.idle:
                engine.check()
                checked = True
            else:
                engine.step()
            continue
        checked = False
        match command:
            case Sequence():
                engine.add(command)
            case Cancel(id=id):
                engine.cancel(id)
            case Ask(id=id):
                outbox.put([Failed(id, InvalidRequest("this model gives no embeddings"))])
            case Answer() | Failed():
                outbox.put([command])
            case Shutdown():
                return


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


def _prepare(
    commands: Commands,
    inbox: Inbox,
    vocabulary: Vocabulary,
    n_ctx: int,
) -> None:
    """Tokenize and check what comes, beside the engine: a long text takes a while."""
    while True:
        command = commands.get()
        try:
            match command:
                case Submit(id=id, request=request):
                    inbox.put(Sequence(id, request, vocabulary, n_ctx))
                case Ask(id=id, question=Tokenize() | Detokenize() as question):
                    inbox.put(Answer(id, _look_up(question, vocabulary)))
                case Ask() | Cancel() | Shutdown():
                    inbox.put(command)
                case _:
                    assert_never(command)
        except CorralError as error:
            assert isinstance(command, Submit | Ask)
            inbox.put(Failed(command.id, error))


def _look_up(question: Tokenize | Detokenize, vocabulary: Vocabulary) -> Tokenized | Detokenized:
    """Answer from the vocabulary alone. Raises InvalidRequest."""
    if isinstance(question, Detokenize):
        vocabulary.check("tokens", question.tokens)
        text = b"".join(vocabulary.spell(question.tokens)).decode(errors="replace")
        return Detokenized(text)
    if question.add_special and question.parse_special:
        tokens = vocabulary.tokenize(Text(question.text, question.literal))
    else:
        tokens = vocabulary.raw.tokenize(
            question.text, question.add_special, question.parse_special
        )
    ids = tuple(tokens.tolist())
    return Tokenized(ids, vocabulary.spell(ids))


def _or_die(target: Callable[..., None]) -> Callable[..., None]:
    """A thread's function that takes the process with it: a deaf worker helps nobody."""

    def run_or_die(*args: Any) -> None:
        try:
            target(*args)
        except Exception:
            log.exception("the worker ends")
            os._exit(1)

    return run_or_die


class _Outbox:
    """Events on their way to the server, one message for each forward."""

    engine: Engine

    def __init__(self, pipe: Connection):
        self._pipe = pipe

    def put(self, events: list[Event]) -> None:
        scheduler = self.engine.scheduler
        n_running, n_waiting = len(scheduler.running), len(scheduler.waiting)
        step = Step(tuple(events), n_running, n_waiting)
        # `send` would make a pickler of its own kind for each message.
        self._pipe.send_bytes(pickle.dumps(step, pickle.HIGHEST_PROTOCOL))


class _Progress:
    """Tells the server how far a load has come, at most every 5%."""

    def __init__(self, pipe: Connection):
        self._pipe = pipe
        self._told = 0.0

    def __call__(self, done: float) -> None:
        # 1.0 is kept for the moment before the warm-up.
        if done >= self._told + 0.05 and done < 1.0:
            self._told = done
            message: Message = Loading(done)
            self._pipe.send(message)


def open_model(load: Load, captured: llama.Log, progress: _Progress) -> llama.Model:
    """Open the GGUF with as many layers on the GPU as are wanted and fit."""
    free = llama.gpu_memory()
    n_layers = 0
    if free:
        n_layers = _gpu_layers(load, captured, free)
    return llama.Model(load.path, load.engine, n_layers, captured, progress)


def _gpu_layers(load: Load, captured: llama.Log, free: list[int]) -> int:
    """Sizes come from opening the file without its weights."""
    with llama.Model(load.path, load.engine, 0, captured, lambda _: None, True) as sizes:
        n_ctx = choose_n_ctx(load.engine, sizes.n_ctx_train)
        per_cell = _bytes_per_cell(sizes, load.engine)
        return choose_gpu_layers(
            load.engine, n_ctx, sizes.n_layer, sizes.size_bytes, per_cell, free
        )


def _bytes_per_cell(model: llama.Model, config: EngineConfig) -> int:
    return model.kv_bytes_per_token(
        KV_BYTES[config.kv_quant], KV_BYTES[config.kv_quant_v or config.kv_quant]
    )


def plan(config: EngineConfig, model: llama.Model) -> tuple[EngineConfig, Layout]:
    """The engine's settings with every `auto` decided."""
    on_gpu = model.n_gpu_layers > 0
    config = choose_flash_attn(config, on_gpu, _has_amx())
    n_ctx = choose_n_ctx(config, model.n_ctx_train)
    free = psutil.virtual_memory().available
    return config, choose_layout(config, n_ctx, _bytes_per_cell(model, config), free, on_gpu)


def _has_amx() -> bool:
    """Whether the processor multiplies matrices in tiles, as far as Linux tells."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_tile" in cpuinfo.read_text()


def warm_up(context: llama.Context) -> bool:
    """Decode two tokens, which finds miscompiled kernels; whether slots can be trimmed."""
    batch = Batch(context.n_batch)
    batch.add(0, [0, 0][: context.n_batch], 0, n_rows=1)
    started = time.monotonic()
    context.forward(batch)
    log.debug("warm-up took %.0f ms", 1000 * (time.monotonic() - started))
    can_trim = context.trim(0, 1)
    context.trim(0, 0)
    return can_trim


def _info(
    model: llama.Model, vocabulary: Vocabulary, context: llama.Context, layout: Layout
) -> ModelInfo:
    return ModelInfo(
        n_ctx=context.n_ctx,
        n_ctx_train=model.n_ctx_train,
        n_slots=context.n_slots,
        n_vocab=vocabulary.n_tokens,
        n_params=model.n_params,
        size_bytes=model.size_bytes,
        description=model.description,
        template=model.template,
        bos=vocabulary.bos,
        eos=vocabulary.eos,
        special=tuple(vocabulary.special),
        kv_layout=layout.name,
        n_gpu_layers=model.n_gpu_layers,
        adds_bos=vocabulary.raw.adds_bos,
        pad=vocabulary.pad,
    )


if __name__ == "__main__":
    main()
