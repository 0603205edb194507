"""llama-batched-bench: what llama.cpp itself reaches, with no server around it.

Its figure for a workload is a ceiling for servers on this build: it knows all requests from the
start, neither samples nor makes text, and has the best of its flags. It computes prompts before
answers; a server that mixes them well can come out a few percent higher.
"""

import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from bench.scenarios import Shape
from bench.servers import Setup

NAME = "batched-bench"
FLASH = ("on", "off")
FLAGS = tuple(
    ("-fa", flash_attn, layout)
    for flash_attn, layout in product(FLASH, ("--kv-unified", "--no-kv-unified"))
)
CELLS = 256
"""llama.cpp gives a sequence a multiple of this."""


class BatchedBenchError(Exception):
    """llama-batched-bench failed or printed something else than its JSON lines."""


@dataclass(frozen=True)
class Timing:
    """Seconds for the prompts of some sequences, and for their tokens after that."""

    prompt_s: float
    answer_s: float


def timings(
    setup: Setup, waves: Sequence[int], n_prompt: int, n_answer: int, flags: Sequence[str]
) -> list[Timing]:
    """Time waves of so many sequences, one wave after another. Raises BatchedBenchError."""
    n_cells = math.ceil((n_prompt + n_answer + 1) / CELLS) * CELLS
    command = [
        *(str(setup.cache.binary("llama-batched-bench")), "-m", str(setup.model)),
        *("-c", str(n_cells * max(waves)), "-npp", str(n_prompt), "-ntg", str(n_answer)),
        *("-npl", ",".join(map(str, waves)), "-t", str(setup.n_threads)),
        *("--output-format", "jsonl", *flags),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(lines) != len(waves):
        raise BatchedBenchError(
            f"llama-batched-bench ended with {done.returncode}: {done.stderr[-500:]}"
        )
    return [Timing(line["t_pp"], line["t_tg"]) for line in lines]


def tokens_per_s(setup: Setup, shape: Shape) -> float:
    """Output tokens per second of a workload."""
    return shape.n_requests * shape.n_answer / min(_seconds(setup, shape, f) for f in FLAGS)


def _seconds(setup: Setup, shape: Shape, flags: Sequence[str]) -> float:
    # The first token of an answer is the prompt's last output.
    n_prompt, n_steps = shape.n_shared + shape.n_own, shape.n_answer - 1
    waves = [shape.n_clients] * shape.n_each
    if not shape.n_shared:
        found = timings(setup, waves, n_prompt, n_steps, flags)
        return sum(timing.prompt_s + timing.answer_s for timing in found)
    found = timings(setup, waves, n_prompt, n_steps, (*flags, "-pps"))
    # It computes one prompt in each wave; a server computes what is shared once, the rest for each.
    n_computed = shape.n_shared + shape.n_requests * shape.n_own
    prompt_s = min(timing.prompt_s for timing in found) * n_computed / n_prompt
    return prompt_s + sum(timing.answer_s for timing in found)
