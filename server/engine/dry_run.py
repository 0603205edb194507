"""A dry run: a model and its context are made without their memory, and llama.cpp says how much.

    python -m server.engine.dry_run

reads what to open from its standard input, and prints the devices that layers may go to and the
lines of llama.cpp's log that tell sizes.
A process of its own: llama.cpp aborts over what it cannot lay out. Nothing may be decoded here.
"""

import logging
import pickle
import re
import sys

from server.engine import llama
from server.engine_config import EngineConfig
from server.errors import CorralError
from server.layout import Layout, choose_attention, has_amx

TOLD = re.compile(r"(model|KV|RS|compute|output) buffer size|: size = ")


class _Printer(logging.Handler):
    """Prints what llama.cpp logs of sizes."""

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if TOLD.search(line):
            sys.stdout.write(f"{line}\n")


def main() -> None:
    """Open what is asked for; ends with 1 and the reason if that cannot be."""
    path, config, n_gpu_layers, layout = pickle.load(sys.stdin.buffer)
    assert isinstance(config, EngineConfig)
    assert isinstance(layout, Layout)
    config = choose_attention(config, n_gpu_layers > 0, has_amx())
    logging.basicConfig(level=logging.DEBUG, handlers=[_Printer()])
    captured = llama.backend_init()
    try:
        with (
            llama.Model(path, config, n_gpu_layers, captured, lambda _: None, True) as model,
            llama.Context(model, config, layout.n_ctx, layout.n_cells),
        ):
            for device in model.devices.chosen:
                sys.stdout.write(f"device {device.buffer_type}\n")
    except CorralError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
