"""Opening a model: what is decided before its contexts are made, and what is said of it."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from server.engine import llama
from server.engine.batch import Batch
from server.engine.vocabulary import Vocabulary
from server.engine_config import EngineConfig
from server.errors import ModelLoadError
from server.estimate import choose_n_ctx
from server.gguf import read_header
from server.ipc import Load, Loading, Message, ModelInfo
from server.layout import Layout, choose_attention, choose_layout, has_amx
from server.need import MARGIN, Need
from server.placement import choose

log = logging.getLogger(__name__)

ALL = 9999
"""Layers; llama.cpp caps it."""


@contextmanager
def open_model(
    load: Load, captured: llama.Log, on_progress: Callable[[float], None]
) -> Generator[llama.Model]:
    """Open the GGUF with as many layers on the GPU as are wanted and fit.

    Raises ModelLoadError, which names the setting at fault if it is one.
    """
    with llama.Devices(load.engine) as devices:
        if load.engine.override_tensors:
            _check_overrides(load, captured, devices)
        config, n_layers = _place(load, devices.free)
        with llama.Model(
            load.path, config, n_layers, captured, on_progress, False, devices
        ) as model:
            if load.engine.n_cpu_moe and not model.n_experts:
                log.warning("n_cpu_moe does nothing: %s has no experts", model.description)
            yield model


def _place(load: Load, free: Sequence[int]) -> tuple[EngineConfig, int]:
    """What lies where, and the number of layers on devices that have so many bytes free.

    The pool has decided that for GPUs of this machine, but it does not look at other devices.
    """
    config = load.engine
    if not free:
        return config, 0
    if config.n_gpu_layers != "auto":
        return config, ALL if config.n_gpu_layers == "all" else config.n_gpu_layers
    try:
        header = read_header(Path(load.path))
    except ModelLoadError:
        return config, 0  # llama.cpp says what is wrong with the file
    room = Need(psutil.virtual_memory().available, tuple(int(n * (1 - MARGIN)) for n in free))
    placement = choose(header, config, room)
    decided: dict[str, object] = {"n_cpu_moe": placement.n_cpu_moe}
    if placement.tensor_split:
        decided["tensor_split"] = placement.tensor_split
    return config.model_copy(update=decided), placement.n_gpu_layers


def _check_overrides(load: Load, captured: llama.Log, devices: llama.Devices) -> None:
    """Raises ModelLoadError, by opening the file without its weights."""
    try:
        _sizes(load, load.engine, captured, devices).close()
    except ModelLoadError as error:
        raise _blame(load, captured, devices) or error from None


def _sizes(
    load: Load, config: EngineConfig, captured: llama.Log, devices: llama.Devices
) -> llama.Model:
    return llama.Model(load.path, config, 0, captured, lambda _: None, True, devices)


def _blame(load: Load, captured: llama.Log, devices: llama.Devices) -> ModelLoadError | None:
    """The override that llama.cpp does not take, if the file can be opened without: a bad regex.

    Only C++ knows which regexes it takes, and tells nothing but why.
    """
    for pair in (None, *load.engine.override_tensors):
        pairs = () if pair is None else (pair,)
        config = load.engine.model_copy(update={"override_tensors": pairs})
        try:
            _sizes(load, config, captured, devices).close()
        except ModelLoadError as error:
            if pair is None:
                return None
            reason = error.message.removeprefix(f"cannot load {load.path}: ")
            return ModelLoadError(f"engine.override_tensors: {pair!r}: {reason}")
    return None


def plan(config: EngineConfig, model: llama.Model) -> tuple[EngineConfig, Layout]:
    """The engine's settings with every `auto` decided."""
    on_gpu = model.n_gpu_layers > 0
    config = choose_attention(config, on_gpu, has_amx())
    n_ctx = choose_n_ctx(config, model.n_ctx_train)
    if model.has_learned_positions or not model.generates:
        # One more position would abort the process.
        n_ctx = min(n_ctx, model.n_ctx_train or n_ctx)
    free = psutil.virtual_memory().available
    return config, choose_layout(config, n_ctx, model.bytes_per_cell(config), free, on_gpu)


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


def probe(model: llama.Model, config: EngineConfig) -> None:
    """The same for a model that does not generate. Raises EngineError."""
    with llama.EmbeddingContext(model, config, n_cells=1) as context:
        batch = Batch(context.n_batch)
        batch.add(0, [0, 0], 0, n_rows=2)
        context.forward(batch)


def describe(
    model: llama.Model, vocabulary: Vocabulary, layout: Layout, context: llama.Context | None
) -> ModelInfo:
    """What the server is told; `context` is None if the model does not generate."""
    return ModelInfo(
        n_ctx=layout.n_ctx if context is None else context.n_ctx,
        n_ctx_train=model.n_ctx_train,
        n_slots=0 if context is None else context.n_slots,
        n_vocab=vocabulary.n_tokens,
        n_params=model.n_params,
        size_bytes=model.size_bytes,
        description=model.description,
        template=model.template,
        bos=vocabulary.bos,
        eos=vocabulary.eos,
        special=tuple(vocabulary.special),
        special_ids=tuple(vocabulary.special.values()),
        kv_layout="none" if context is None else layout.name,
        n_gpu_layers=model.n_gpu_layers,
        adds_bos=vocabulary.raw.adds_bos,
        pad=vocabulary.pad,
        generates=model.generates,
        embeds=model.embeds,
        ranks=model.ranks,
        n_embd=model.n_embd,
        pooling=model.pooling,
        memory=model.memory,
        name=model.metadata("general.name") or "",
        architecture=model.metadata("general.architecture") or "",
        tool_template=model.template_for("tool_use"),
        document_template=model.template_for("rag"),
        ends=tuple(filter(None, map(vocabulary.raw.text, vocabulary.ends.tolist()))),
    )


class Progress:
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
