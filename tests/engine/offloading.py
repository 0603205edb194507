"""A process that opens models as it is told. In ours, RPC servers would stay known for good."""

import ctypes
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from server.engine import llama, opening
from server.engine.batch import Batch
from server.engine_config import EngineConfig
from server.errors import CorralError
from server.ipc import Load
from tests.conftest import ROOT

PROMPT = (504, 2365, 282, 4649)


@dataclass(frozen=True)
class Wanted:
    """A model to open, and the tokens that it is to go on from."""

    path: Path
    engine: EngineConfig
    prompt: tuple[int, ...] = PROMPT


@dataclass(frozen=True)
class Opened:
    """What came of it. Bytes by device; resident bytes of each process that was asked about."""

    memory: dict[str, int]
    resident: tuple[int, ...]
    n_gpu_layers: int
    tokens: tuple[int, ...]


def opened(wanted: Sequence[Wanted], pids: Sequence[int] = ()) -> list[Opened | str]:
    """What comes of each, one after the other in a process of its own; or why it was refused."""
    run = subprocess.run(
        [sys.executable, "-c", "from tests.engine import offloading; offloading.main()"],
        input=pickle.dumps((wanted, pids)),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    return pickle.loads(run.stdout)


def _open(wanted: Wanted, log: llama.Log, pids: Sequence[int]) -> Opened | str:
    load = Load("m", str(wanted.path), wanted.engine)
    try:
        with opening.open_model(load, log, lambda _: None) as model:
            config, layout = opening.plan(wanted.engine, model)
            with llama.Context(model, config, layout.n_ctx, layout.n_cells) as context:
                tokens = _greedy(context, list(wanted.prompt))
                processes = [psutil.Process(pid) for pid in (psutil.Process().pid, *pids)]
                _give_back()
                resident = tuple(process.memory_info().rss for process in processes)
                return Opened(dict(model.memory), resident, model.n_gpu_layers, tokens)
    except CorralError as error:
        return error.message


def _give_back() -> None:
    """What was freed on the way belongs to nobody, but may still be resident."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _greedy(context: llama.Context, tokens: list[int], n: int = 12) -> tuple[int, ...]:
    batch = Batch(context.n_batch)
    answer: list[int] = []
    while len(answer) < n:
        batch.clear()
        batch.add(0, tokens, context.cells_of(0), n_rows=1)
        context.forward(batch)
        tokens = [int(context.logits(1)[0].argmax())]
        answer += tokens
    return tuple(answer)


def main() -> None:
    """Read what is wanted, write what came of it."""
    captured = llama.backend_init()
    wanted, pids = pickle.load(sys.stdin.buffer)
    pickle.dump([_open(each, captured, pids) for each in wanted], sys.stdout.buffer)
