"""Dry runs by llama.cpp, of models that it would not find the memory for, and those that fail."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from server import estimate as sizes
from server.engine_config import EngineConfig
from server.errors import EngineError
from server.gguf import read_header
from server.layout import Layout, choose_attention
from server.need import Need, Parts, place
from server.pool.dry_run import Size, beyond, dry_run, read_sizes
from tests.gguf_files import write_sparse
from tests.test_estimate import FLASH, MIXTRAL

CONFIG = EngineConfig(flash_attn="on", n_threads=1, n_slots=4)


@pytest.mark.parametrize("flash_attn", ["on", "off"])
async def test_the_estimates_of_a_mixtral(tmp_path: Path, flash_attn: str) -> None:
    path = write_sparse(tmp_path / "bagel.gguf")
    header = read_header(path)
    config = CONFIG.model_copy(update={"flash_attn": flash_attn})
    config = choose_attention(config, on_gpu=False, has_amx=False)
    layout = Layout(32_768, 32_768, "")
    told = {size.kind: size.n_bytes for size in await dry_run(path, config, 0, layout)}
    assert told["KV"] == 32_768 * sizes.bytes_per_cell(header, config)
    assert told["compute"] == pytest.approx(sizes.layer_buffer(header, config, 32_768), rel=0.05)
    assert 2 * told["output"] == pytest.approx(sizes.output_buffer(header, 4), rel=0.05)


async def test_what_llama_refuses(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no dry run of .*none.gguf: cannot load"):
        await dry_run(tmp_path / "none.gguf", CONFIG, 0, Layout(64, None, ""))


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os; os.abort()", "llama.cpp died: signal SIGABRT"),
        ("import time; time.sleep(60)", "not done after 0.5 s"),
        ("raise SystemExit(1)", "no reason given"),
    ],
)
async def test_a_run_that_does_not_come_back(program: str, why: str) -> None:
    command = (sys.executable, "-c", program)
    with pytest.raises(EngineError, match=why):
        await dry_run(
            Path("x"),
            CONFIG,
            0,
            Layout(64, None, ""),
            command,
            timeout_s=0.5 if "sleep" in program else 30,
        )


def test_each_device_is_told() -> None:
    log = """
llama.cpp: llama_kv_cache:      CUDA0 KV buffer size =   128.00 MiB
llama.cpp: llama_kv_cache:        CPU KV buffer size =     0.00 MiB
llama.cpp: llama_kv_cache: size =  128.00 MiB (  1024 cells,  32 layers,  1/1 seqs), K (f16)
llama.cpp: sched_reserve:  CUDA_Host compute buffer size =    16.01 MiB
"""
    assert read_sizes(log) == [
        Size("CUDA0", "KV", 128 * 2**20),
        Size("CUDA_Host", "compute", round(16.01 * 2**20)),
    ]
    assert read_sizes(
        log.replace("128.00 MiB\nllama.cpp: llama_kv_cache:        CPU", "0.00 MiB\n")
    )[-1] == Size("all", "KV", 128 * 2**20)


def test_devices_are_those_that_layers_go_to() -> None:
    log = """
device RPC0[h:1]
device CUDA0
llama.cpp: sched_reserve: RPC0[h:1] compute buffer size =     1.00 MiB
llama.cpp: sched_reserve:      CUDA0 compute buffer size =     2.00 MiB
llama.cpp: sched_reserve:  CUDA_Host compute buffer size =     4.00 MiB
llama.cpp: llama_memory_recurrent: size =    8.00 MiB (     4 cells,  32 layers,  4 seqs)
"""
    told = {(size.device, size.gpu): size.n_bytes // 2**20 for size in read_sizes(log)}
    assert told == {("RPC0[h:1]", 0): 1, ("CUDA0", 1): 2, ("CUDA_Host", None): 4, ("all", None): 8}


MIB = 2**20
LAYOUT = Layout(4096, 4096, "")
LOGITS = sizes.logits_buffer(MIXTRAL, FLASH)
N_ROWS = sizes.output_rows(FLASH, FLASH.n_slots)


def placed(n_layers: int) -> Parts:
    return place(MIXTRAL, FLASH, n_layers, LAYOUT, 2 if n_layers else 0, (1, 1))


def as_estimated(parts: Parts) -> list[Size]:
    """What llama.cpp tells if it agrees."""
    output, told = (sizes.output_buffer(MIXTRAL, n) for n in (N_ROWS, FLASH.n_slots))
    n_cells = parts.cells.ram + sum(parts.cells.gpus)
    there = [Size(f"GPU{i}", "compute", n, i) for i, n in enumerate(parts.buffers.gpus)]
    return [
        Size("all", "KV", n_cells),
        Size("CPU", "output", told // 2),
        Size("CPU", "compute", parts.buffers.ram - output),
        *there,
    ]


def without(told: list[Size], kind: str, gpu: int | None = None) -> list[Size]:
    return [size for size in told if (size.kind, size.gpu) != (kind, gpu)]


@pytest.mark.parametrize("n_layers", [0, 10, 33])
def test_nothing_is_beyond_an_estimate_that_is_right(n_layers: int) -> None:
    parts = placed(n_layers)
    more = beyond(MIXTRAL, FLASH, parts, as_estimated(parts))
    assert abs(more.ram) <= 1 and set(more.gpus) <= {0}


def test_cells_are_beyond_where_they_lie() -> None:
    parts = placed(17)
    told = [*without(as_estimated(parts), "KV"), Size("all", "KV", 4096 * 128 * 1024 * 3 // 2)]
    more = beyond(MIXTRAL, FLASH, parts, told)
    assert more.gpus == tuple(n // 2 for n in parts.cells.gpus) and all(more.gpus)
    assert more.ram == pytest.approx(parts.cells.ram / 2, abs=2)
    states = [*told, Size("all", "RS", 4096 * 128 * 1024)]
    assert beyond(MIXTRAL, FLASH, parts, states).gpus == tuple(n * 3 // 2 for n in parts.cells.gpus)


@pytest.mark.parametrize(
    ("n_layers", "compute", "more"),
    [
        # More than the logits explain counts as it is.
        (0, LOGITS * 2, LOGITS * 2 - sizes.layer_buffer(MIXTRAL, FLASH, 4096)),
        # What is less than estimated leaves less for the layers.
        (0, MIB, MIB - sizes.layer_buffer(MIXTRAL, FLASH, 4096)),
        # Logits are where the last layer is.
        (10, LOGITS, None),
    ],
)
def test_compute_buffers_in_ram(n_layers: int, compute: int, more: int | None) -> None:
    parts = placed(n_layers)
    told = [*without(as_estimated(parts), "compute"), Size("CPU", "compute", compute)]
    if more is None:
        more = compute - (parts.buffers.ram - sizes.output_buffer(MIXTRAL, N_ROWS))
    assert beyond(MIXTRAL, FLASH, parts, told).ram == pytest.approx(more, abs=1)


def test_room_for_logits_in_ram_is_not_touched() -> None:
    many = replace(MIXTRAL, n_vocab=200_000)
    parts = place(many, FLASH, 0, LAYOUT, 0)
    logits = sizes.logits_buffer(many, FLASH)
    n_output = sizes.output_buffer(many, FLASH.n_slots)
    told = [
        Size("all", "KV", parts.cells.ram),
        Size("CPU", "output", n_output // 2),
        Size("CPU", "compute", logits + 4 * MIB),
    ]
    assert logits > 1.5 * parts.buffers.ram
    assert beyond(many, FLASH, parts, told) == Need(0)


def test_compute_buffers_on_gpus() -> None:
    parts = placed(33)
    told = [*without(as_estimated(parts), "compute", 1), Size("GPU1", "compute", 7 * MIB, 1)]
    more = beyond(MIXTRAL, FLASH, parts, told)
    assert more.gpus == (0, 7 * MIB - parts.buffers.gpus[1])


def test_a_model_without_cells_is_as_estimated() -> None:
    """It only embeds: it is not given the context that was tried."""
    told = without(as_estimated(placed(0)), "KV")
    assert beyond(MIXTRAL, FLASH, placed(0), told) == Need(0)
