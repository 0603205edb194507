"""Decode speed without a server: llama-batched-bench against decoders in this process.

`ctypes_decoder` is the least that Python can do: a fixed batch through llama_decode, unsampled. It
says how much of a difference is Python's before any engine is measured. A decoder joins by a line
in DECODERS.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import llama_cpp.llama_cpp as llama

from bench.measure import Measurement, quietly
from bench.model import ModelError, silence_logs
from bench.scenarios import TOKENS_PER_S, Figures
from bench.servers import Setup

BATCHED_BENCH = "batched-bench"
N_PROMPT = 64
N_STEPS = 128
BATCH_SIZES = (1, 16)
N_CTX = 256

# (setup, batch size) -> decoded tokens per second of all sequences together
Decoder = Callable[[Setup, int], float]


class BatchedBenchError(Exception):
    """llama-batched-bench failed or printed something else than its JSON lines."""


def batched_bench(setup: Setup, n_batch: int) -> float:
    """Decode speed as llama-batched-bench measures it, at the flags that are fastest on a CPU."""
    command = [
        *(str(setup.cache.binary("llama-batched-bench")), "-m", str(setup.model)),
        *("-c", str(N_CTX * n_batch), "-npp", str(N_PROMPT), "-ntg", str(N_STEPS)),
        *("-npl", str(n_batch), "-t", str(setup.n_threads), "-fa", "off", "--no-kv-unified"),
        *("--output-format", "jsonl"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            return float(json.loads(line)["speed_tg"])
    raise BatchedBenchError(
        f"llama-batched-bench ended with {done.returncode}: {done.stderr[-500:]}"
    )


@dataclass
class _Context:
    """A context with split KV streams and no flash attention, and a batch to fill."""

    handle: llama.llama_context_p
    batch: llama.llama_batch

    def decode(self, positions: list[int], streams: list[int], with_logits: bool) -> None:
        """Forward one token for each (position, stream)."""
        batch = self.batch
        batch.n_tokens = len(positions)
        for row, (position, stream) in enumerate(zip(positions, streams, strict=True)):
            batch.token[row] = 1000 + 7 * row
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = stream
            batch.logits[row] = with_logits
        code = llama.llama_decode(self.handle, batch)
        if code:
            raise ModelError(f"llama_decode returned {code}")


@contextmanager
def _open_context(setup: Setup, n_batch: int) -> Generator[_Context]:
    params = llama.llama_context_default_params()
    params.n_ctx = N_CTX * n_batch
    params.n_seq_max = n_batch
    params.n_threads = params.n_threads_batch = setup.n_threads
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.kv_unified = False
    silence_logs()
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(
        str(setup.model).encode(), llama.llama_model_default_params()
    )
    if not model:
        raise ModelError(f"llama.cpp cannot load {setup.model}")
    handle = llama.llama_init_from_model(model, params)
    if not handle:
        raise ModelError(f"no context of {params.n_ctx} tokens for {setup.model}")
    batch = llama.llama_batch_init(max(N_PROMPT, n_batch), 0, 1)
    try:
        yield _Context(handle, batch)
    finally:
        llama.llama_batch_free(batch)
        llama.llama_free(handle)
        llama.llama_model_free(model)


def ctypes_decoder(setup: Setup, n_batch: int) -> float:
    """Decode speed of a bare loop over llama_decode."""
    streams = list(range(n_batch))
    with _open_context(setup, n_batch) as context:
        for stream in streams:
            context.decode(list(range(N_PROMPT)), [stream] * N_PROMPT, False)
        start = time.perf_counter()
        for step in range(N_STEPS):
            context.decode([N_PROMPT + step] * n_batch, streams, True)
            llama.llama_synchronize(context.handle)
        return N_STEPS * n_batch / (time.perf_counter() - start)


DECODERS: dict[str, Decoder] = {BATCHED_BENCH: batched_bench, "ctypes": ctypes_decoder}


def _figures(decode: Decoder, setup: Setup, n_batch: int) -> Figures:
    return {TOKENS_PER_S: decode(setup, n_batch)}


def _own_seconds() -> float:
    """Processor time of this process and of the children that it has waited for."""
    return sum(os.times()[:4])


def measure(setup: Setup, n_rounds: int, say: Callable[[str], None]) -> list[Measurement]:
    """Every decoder at every batch size, interleaved."""
    measurements: list[Measurement] = []
    for round_ in range(n_rounds):
        for n_batch in BATCH_SIZES:
            for name, decode in DECODERS.items():
                say(f"round {round_ + 1}/{n_rounds}: decode in-process, {n_batch} at once | {name}")
                figures, elsewhere = quietly(
                    partial(_figures, decode, setup, n_batch), _own_seconds
                )
                measurements.append(
                    Measurement(round_, name, f"decode-{n_batch}", figures, elsewhere)
                )
    return measurements
