"""`corral models --card`: the well-known table, and our estimate beside it."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from server.commands import card
from server.config import Config, FoundConfig
from server.engine_config import EngineConfig
from server.estimate import WORKER_BYTES
from tests import card_of_mixtral as mixtral
from tests.gguf_files import write_gguf
from tests.pool.stand_in_hub import serve

ROOT = Path(__file__).resolve().parent.parent.parent
REPO = "someone/bagel-GGUF"


def printed(
    folder: Path, n_ctx: int | None = None, *, as_json: bool = False, config: Config | None = None
) -> str:
    text = StringIO()
    card.run(str(folder), config or Config(), n_ctx, as_json, Console(file=text, width=300))
    return text.getvalue()


@pytest.fixture
def family(tmp_path: Path) -> Path:
    for quant in mixtral.CARD:
        mixtral.sparse(tmp_path / f"mix-8x7b.{quant}.gguf", mixtral.size_of(quant))
    return tmp_path


def test_it_is_the_card(family: Path) -> None:
    lines = [line.split() for line in printed(family).splitlines()]
    heads = "Name Quant method Bits Size Max RAM required Use case Estimate"
    assert lines[0] == heads.split()
    rows = {line[1]: line for line in lines[1 : len(mixtral.CARD) + 1]}
    assert list(rows) == list(mixtral.CARD)
    for quant, (size, ram) in mixtral.CARD.items():
        expected = [f"mix-8x7b.{quant}.gguf", quant, quant[1], size, "GB", ram, "GB"]
        assert rows[quant][:7] == expected
    medium = "medium, balanced quality - recommended"
    assert rows["Q4_K_M"][7:-2] == medium.split()
    assert rows["Q4_0"][7] == "legacy;"


@pytest.mark.parametrize(("n_ctx", "tokens"), [(None, 8192), (32768, 32768)])
def test_the_estimate_is_for_the_context(family: Path, n_ctx: int | None, tokens: int) -> None:
    flash = Config(found=FoundConfig(engine=EngineConfig(flash_attn="on")))
    text = printed(family, n_ctx, as_json=True, config=flash)
    rows = {row["quant"]: row for row in json.loads(text)}
    row = rows["Q4_K_M"]
    assert row["n_ctx"] == tokens
    known = mixtral.size_of("Q4_K_M") + WORKER_BYTES + tokens * mixtral.CELL_BYTES
    assert 0 < row["estimate_bytes"] - known < 200e6  # buffers
    assert f"a context of {tokens:,} tokens" in printed(family, n_ctx)


def test_settings_of_found_models_count(family: Path) -> None:
    engine = EngineConfig(n_ctx=1000, kv_quant="f32")
    config = Config(found=FoundConfig(engine=engine))
    row = json.loads(printed(family, as_json=True, config=config))[0]
    assert row["n_ctx"] == 1000
    assert row["estimate_bytes"] - row["size_bytes"] > 2000 * mixtral.CELL_BYTES


@pytest.mark.parametrize("quant", list(mixtral.LISTED))
def test_the_sizes_of_a_sister_are_listed(quant: str, tmp_path: Path) -> None:
    gb = mixtral.LISTED[quant]
    mixtral.sparse(tmp_path / f"bagel-dpo-8x7b-v0.2.{quant}.gguf", round(gb * 10**9))
    (row,) = json.loads(printed(tmp_path, as_json=True))
    assert row["max_ram_bytes"] == round((gb + 2.5) * 10**9)
    line = printed(tmp_path).splitlines()[1]
    assert f"{gb:.1f}0 GB" in line
    assert f"{gb + 2.5:.1f}0 GB" in line


def test_parts_and_faults_are_told(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m[1].Q4_K_S.gguf", n_parts=3)
    (tmp_path / "plain.gguf").write_text("hello")
    text = printed(tmp_path)
    assert "m[1].Q4_K_S (3 parts)  Q4_K_S " in text
    line = next(line for line in text.splitlines() if line.startswith("plain.gguf"))
    assert line.split() == ["plain.gguf", "-", "-", "0.00", "GB", "2.50", "GB", "-"]
    assert "plain.gguf: not a GGUF file" in text.splitlines()[-1]


def test_a_repository_of_the_hub_without_any_configuration(tmp_path: Path) -> None:
    head = mixtral.header(tmp_path / "head.gguf").read_bytes()
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "CORRAL_"))}
    with serve() as hub:
        hub.repos[REPO] = {f"bagel-dpo-8x7b-v0.2.{quant}.gguf": head for quant in mixtral.LISTED}
        hub.sizes.update(
            (f"bagel-dpo-8x7b-v0.2.{quant}.gguf", round(gb * 10**9))
            for quant, gb in mixtral.LISTED.items()
        )
        ours |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "server", "models", "--card", REPO, "--ctx", "4096"]
        run = subprocess.run(command, cwd=tmp_path, env=ours, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    lines = [line.split() for line in run.stdout.splitlines()]
    for line, (quant, gb) in zip(lines[1:], mixtral.LISTED.items(), strict=False):
        assert line[1:7] == [quant, quant[1], f"{gb}0", "GB", f"{gb + 2.5:.1f}0", "GB"]
        assert float(line[-2]) == pytest.approx(gb + 4096 * mixtral.CELL_BYTES / 1e9, abs=0.3)
    assert f"The models of {REPO} at {hub.url}." in run.stdout
