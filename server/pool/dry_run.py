"""What llama.cpp itself says that a placement takes, by a process that opens the model without it.

Exact for cells and buffers. Weights are not laid out in a dry run: no sizes of them are told.
"""

import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from server.engine_config import EngineConfig
from server.errors import EngineError
from server.layout import Layout

COMMAND = (sys.executable, "-m", "server.engine.dry_run")

TIMEOUT_S = 60.0

BUFFER = re.compile(
    r"(?P<device>\S+)\s+(?P<kind>KV|RS|compute|output) buffer size = +(?P<mib>[\d.]+) MiB"
)
WHOLE = re.compile(r"llama_kv_cache: size = +(?P<mib>[\d.]+) MiB")
"""Of all cells: a dry run tells none of single devices."""

MIB = 2**20


class Size(NamedTuple):
    """One buffer, in bytes."""

    device: str
    """As llama.cpp calls it; of cells that lie on several: all."""
    kind: str
    n_bytes: int


def dry_run(
    path: Path,
    config: EngineConfig,
    n_gpu_layers: int,
    layout: Layout,
    command: tuple[str, ...] = COMMAND,
    timeout_s: float = TIMEOUT_S,
) -> list[Size]:
    """The sizes of cells and buffers. Raises EngineError if llama.cpp refuses, dies or hangs."""
    try:
        done = subprocess.run(
            command,
            input=pickle.dumps((str(path), config, n_gpu_layers, layout)),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"no dry run of {path}: not done after {timeout_s:g} s") from None
    if done.returncode < 0:
        how = signal.Signals(-done.returncode).name
        raise EngineError(f"no dry run of {path}: llama.cpp died of {how}")
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines()
        raise EngineError(f"no dry run of {path}: {why[-1] if why else 'no reason given'}")
    return read_sizes(done.stdout.decode(errors="replace"))


def read_sizes(log: str) -> list[Size]:
    """The buffers that a log tells of. Those with nothing in them are left out."""
    found = [Size(line["device"], line["kind"], _bytes(line)) for line in BUFFER.finditer(log)]
    if not any(size.kind == "KV" and size.n_bytes for size in found):
        found += [Size("all", "KV", _bytes(line)) for line in WHOLE.finditer(log)]
    return [size for size in found if size.n_bytes]


def _bytes(line: re.Match[str]) -> int:
    return round(float(line["mib"]) * MIB)
