"""Dry runs by llama.cpp, of models that it would not find the memory for, and those that fail."""

import sys
from pathlib import Path

import pytest

from server import estimate as sizes
from server.engine_config import EngineConfig
from server.errors import EngineError
from server.gguf import read_header
from server.layout import Layout
from server.pool.dry_run import Size, dry_run, read_sizes
from tests.gguf_files import write_sparse

CONFIG = EngineConfig(flash_attn="on", n_threads=1, n_slots=4)


@pytest.mark.parametrize("flash_attn", ["on", "off"])
def test_the_estimates_of_a_mixtral(tmp_path: Path, flash_attn: str) -> None:
    path = write_sparse(tmp_path / "bagel.gguf")
    header = read_header(path)
    config = CONFIG.model_copy(update={"flash_attn": flash_attn})
    layout = Layout(32_768, 32_768, "")
    told = {size.kind: size.n_bytes for size in dry_run(path, config, 0, layout)}
    assert told["KV"] == 32_768 * sizes.bytes_per_cell(header, config)
    assert told["compute"] == pytest.approx(sizes.layer_buffer(header, config, 32_768), rel=0.05)
    assert 2 * told["output"] == pytest.approx(sizes.output_buffer(header, 4), rel=0.05)


def test_what_llama_refuses(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no dry run of .*none.gguf: cannot load"):
        dry_run(tmp_path / "none.gguf", CONFIG, 0, Layout(64, None, ""))


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os; os.abort()", "llama.cpp died of SIGABRT"),
        ("import time; time.sleep(60)", "not done after 0.5 s"),
        ("raise SystemExit(1)", "no reason given"),
    ],
)
def test_a_run_that_does_not_come_back(program: str, why: str) -> None:
    command = (sys.executable, "-c", program)
    with pytest.raises(EngineError, match=why):
        dry_run(
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
