"""Decode speed without a server: llama-batched-bench against Corral's engine in this process."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from bench import batched_bench
from bench.measure import Plan, Recorder, own_seconds
from bench.scenarios import TOKENS_PER_S, Figures
from bench.servers import CORRAL, Setup
from server.engine import llama
from server.engine.engine import Engine
from server.engine.kv import KVCells
from server.engine.opening import plan
from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.engine_config import EngineConfig
from server.ipc import Event, GenerateRequest
from server.sampling import SamplingParams

N_PROMPT = 64
N_STEPS = 128
BATCH_SIZES = (1, 16)
N_CTX = 256

# (setup, batch size) -> decoded tokens per second of all sequences together
Decoder = Callable[[Setup, int], float]


def llama_cpp(setup: Setup, n_batch: int) -> float:
    """Decode speed as llama-batched-bench measures it, with whichever flash attention is faster."""
    found = (
        batched_bench.timings(
            setup, [n_batch], N_PROMPT, N_STEPS, ("-fa", flash_attn, "--no-kv-unified")
        )
        for flash_attn in batched_bench.FLASH
    )
    return n_batch * N_STEPS / min(timing.answer_s for [timing] in found)


def corral(setup: Setup, n_batch: int) -> float:
    """Decode speed of the engine as the worker runs it, sampling and text included."""
    config = EngineConfig(n_ctx=N_CTX, n_slots=n_batch, n_threads=setup.n_threads)
    captured = llama.backend_init()
    with llama.Model(str(setup.model), config, 0, captured, lambda _: None) as model:
        config, layout = plan(config, model)
        with llama.Context(model, config, layout.n_ctx, layout.n_cells) as context:
            kv = KVCells(context, layout.name == "unified", can_trim=True, budget=0)
            vocabulary = Vocabulary(model.vocabulary)
            engine = Engine(context, vocabulary, kv, 1000, 512, 0, True, _ignore)
            return _decode(engine, vocabulary, n_batch)


def _decode(engine: Engine, vocabulary: Vocabulary, n_batch: int) -> float:
    greedy = SamplingParams(temperature=0, ignore_eos=True)
    tokens = np.random.default_rng(n_batch)
    for id in range(n_batch):
        prompt = tuple(tokens.integers(100, 1000, N_PROMPT).tolist())
        request = GenerateRequest(prompt, greedy, N_STEPS, cache_prompt=False)
        engine.add(Sequence(id, request, vocabulary, N_CTX))
    running = engine.scheduler.running
    while len(running) < n_batch or any(s.n_pending > 1 for s in running):
        engine.step()
    before = sum(s.n_completion for s in running)
    start = time.perf_counter()
    while not engine.idle:
        engine.step()
    return (n_batch * N_STEPS - before) / (time.perf_counter() - start)


def _ignore(_: list[Event]) -> None:
    """Nobody listens to these answers."""


DECODERS: dict[str, Decoder] = {batched_bench.NAME: llama_cpp, CORRAL: corral}


def _figures(decode: Decoder, setup: Setup, n_batch: int) -> Figures:
    return {TOKENS_PER_S: decode(setup, n_batch)}


def measure(setup: Setup, plan: Plan, recorder: Recorder) -> None:
    """Every decoder at every batch size, interleaved."""
    for round_ in range(plan.n_rounds):
        for n_batch in BATCH_SIZES:
            for name, decode in DECODERS.items():
                attempt = partial(_figures, decode, setup, n_batch)
                recorder.take(round_, f"decode-{n_batch}", name, attempt, own_seconds)
