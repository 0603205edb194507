"""What llama.cpp itself says that a placement takes, by a process that opens the model without it.

Exact for cells and buffers. Weights are not laid out in a dry run: no sizes of them are told.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

from server import estimate as sizes
from server.engine_config import EngineConfig
from server.errors import EngineError
from server.gguf import Header
from server.layout import Layout, choose_attention, has_amx
from server.need import Need, Parts
from server.pool.inquiry import inquire

COMMAND = (sys.executable, "-m", "server.engine.dry_run")

TIMEOUT_S = 60.0

DEVICE = re.compile(r"^device (?P<name>\S+)$", re.MULTILINE)
"""Those that layers go to, in their order."""

BUFFER = re.compile(
    r"(?P<device>\S+)\s+(?P<kind>KV|RS|compute|output) buffer size = +(?P<mib>[\d.]+) MiB"
)
WHOLE = {
    "KV": re.compile(r"llama_kv_cache: size = +(?P<mib>[\d.]+) MiB"),
    "RS": re.compile(r"llama_memory_recurrent: size = +(?P<mib>[\d.]+) MiB"),
}
"""Of all cells, and of all states: a dry run may tell none of single devices."""

MIB = 2**20

LOGITS = 1.1
"""A buffer up to so much larger than a batch of logits is as large as it is for their sake."""


class Size(NamedTuple):
    """One buffer, in bytes."""

    device: str
    """As llama.cpp calls it; of cells that lie on several: all."""
    kind: str
    n_bytes: int
    gpu: int | None = None
    """Which one it is on; None: in RAM, or not told."""


async def dry_run(
    path: Path,
    config: EngineConfig,
    n_gpu_layers: int,
    layout: Layout,
    command: tuple[str, ...] = COMMAND,
    timeout_s: float = TIMEOUT_S,
) -> list[Size]:
    """The sizes of cells and buffers. Raises EngineError if llama.cpp refuses, dies or hangs."""
    try:
        answer = await inquire(command, (str(path), config, n_gpu_layers, layout), timeout_s)
    except EngineError as error:
        raise EngineError(f"no dry run of {path}: {error.message}") from None
    return read_sizes(answer)


def read_sizes(log: str) -> list[Size]:
    """The buffers that a log tells of. Those with nothing in them are left out."""
    gpus = DEVICE.findall(log)
    found = [
        Size(line["device"], line["kind"], _bytes(line), _gpu(line["device"], gpus))
        for line in BUFFER.finditer(log)
    ]
    for kind, whole in WHOLE.items():
        if not any(size.kind == kind and size.n_bytes for size in found):
            found += [Size("all", kind, _bytes(line)) for line in whole.finditer(log)]
    return [size for size in found if size.n_bytes]


def _gpu(device: str, gpus: list[str]) -> int | None:
    """What lies in RAM for a GPU's sake, such as CUDA_Host, is not on it."""
    return gpus.index(device) if device in gpus else None


def _bytes(line: re.Match[str]) -> int:
    return round(float(line["mib"]) * MIB)


def beyond(header: Header, config: EngineConfig, parts: Parts, told: list[Size]) -> Need:
    """What llama.cpp wants beyond the estimated `parts`, of each memory; negative where less.

    Cells are told as a whole and lie where the estimate has them. The room for a batch of logits
    counts on GPUs alone: in RAM it is set aside and hardly ever touched, so where it explains a
    buffer's size the estimate stays.
    """
    on_gpu = any(parts.weights.gpus)
    config = choose_attention(config, on_gpu, has_amx())
    cells, buffers = parts.cells, parts.buffers
    estimated = cells.ram + sum(cells.gpus)
    n_cells = sum(size.n_bytes for size in told if size.kind in WHOLE)
    if not n_cells:
        return Need(0)  # it only embeds, and is not given such a context
    # Of a model that keeps something else than cells, none are estimated.
    moved = cells.times(n_cells / estimated) if estimated else Need(n_cells)
    # They are where they are computed, and where they are read.
    n_rows = sizes.output_rows(config, config.n_slots)
    output = sizes.output_buffer(header, n_rows)
    # It tells of one row for each slot; drafts have more.
    n_told = sum(size.n_bytes for size in told if size.kind == "output")
    n_output = 2 * n_told * n_rows // config.n_slots
    layers = _compute(told, None)
    if not on_gpu and layers <= LOGITS * sizes.logits_buffer(header, config):
        layers = min(layers, buffers.ram - output)
    gpus = tuple(_compute(told, number) for number in range(len(buffers.gpus)))
    return moved.less(cells).plus(Need(n_output + layers, gpus)).less(buffers)


def _compute(told: list[Size], gpu: int | None) -> int:
    return sum(size.n_bytes for size in told if size.kind == "compute" and size.gpu == gpu)
