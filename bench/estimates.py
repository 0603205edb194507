"""Estimates against measured memory: quants of one model, over contexts.

Compared are `server.estimate` and what a real worker needs to stay in RAM after a prompt of 1,500
tokens: all of its own pages, and of the mapped file those that this prompt read. Plain resident
memory would count the file's pages twice whose weights were repacked. One slot, flash attention on,
one thread. On Linux.
"""

from pathlib import Path

import psutil

from bench.measure import MIB, Measurement, Plan, Recorder
from bench.model import ensure_model
from bench.scenarios import Figures
from bench.servers import CORRAL, ServerError, Setup
from server.engine_config import EngineConfig
from server.errors import CorralError
from server.estimate import estimate
from server.gguf import read_header
from tests.measuring import taken_by_a_worker

MEASURED = "measured"
QUANTS = ("F16", "Q8_0", "Q4_K_M", "Q3_K_M", "Q2_K")
CONTEXTS = (2048, 8192, 32_768)
N_PROMPT = 1500


def scenario(quant: str) -> str:
    """What a quant's figures are called."""
    return f"estimate {quant}"


def metric(n_ctx: int) -> str:
    """What the figure of a context is called."""
    return f"at {n_ctx:,}, MiB"


def _config(n_ctx: int) -> EngineConfig:
    return EngineConfig(n_ctx=n_ctx, n_slots=1, n_threads=1, flash_attn="on")


def _estimated(path: Path, n_ctx: int) -> Figures:
    return {metric(n_ctx): estimate(read_header(path), _config(n_ctx), n_ctx).total / MIB}


def _measured(path: Path, n_ctx: int) -> Figures:
    try:
        return {metric(n_ctx): taken_by_a_worker(path, _config(n_ctx), N_PROMPT).needed / MIB}
    except (CorralError, psutil.Error) as error:
        raise ServerError(f"no worker to measure: {error}") from error


def measure(setup: Setup, _plan: Plan, recorder: Recorder) -> None:
    """Every quant at every context, once: memory does not vary as time does."""
    for quant in QUANTS:
        path = ensure_model(setup.cache.root, quant, setup.second)
        for n_ctx in CONTEXTS:
            recorder.say(0, f"{scenario(quant)} | {metric(n_ctx)}")
            with recorder.noting(0, scenario(quant), MEASURED):
                for server, figures in (
                    (CORRAL, _estimated(path, n_ctx)),
                    (MEASURED, _measured(path, n_ctx)),
                ):
                    recorder.add(Measurement(0, server, scenario(quant), figures, 0.0))
