"""Plans of quants, and what comes of them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from server.commands.errand import Errand
from server.errands import Advance, Quantize, Quantized
from server.errors import CommandError
from server.gguf import read_header
from server.quants import ALIASES, NAMES


@pytest.fixture(scope="module")
def errand() -> Iterator[Errand]:
    with Errand("server.engine.quantizing") as errand:
        yield errand


def job(source: Path, quant: str, target: Path) -> Quantize:
    return Quantize(str(source), quant, str(target), 1, True)


def test_every_known_quant_can_be_planned(errand: Errand, model_path: Path, tmp_path: Path) -> None:
    bits = {
        name: errand.ask(job(model_path, name, tmp_path / "x"), Quantized, print).bits_per_weight
        for name in NAMES
    }
    assert bits["F32"] == 32
    assert bits["BF16"] == bits["F16"] == pytest.approx(16, abs=0.1)
    assert bits["F16"] > bits["Q8_0"] > bits["Q5_K_M"] > bits["Q4_K_M"] > bits["Q3_K_S"]
    assert all(4 < bits[name] < 8.6 for name in NAMES[3:])
    assert list(tmp_path.iterdir()) == []
    assert set(ALIASES.values()) <= set(NAMES)


def test_the_file_is_what_the_plan_said(errand: Errand, model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "made.gguf"
    wanted = job(model_path, "Q4_0", path)
    plan = errand.ask(wanted, Quantized, print)
    steps: list[Advance] = []
    made = errand.ask(replace(wanted, plan=plan), Quantized, steps.append)
    assert made == plan
    assert (len(steps), steps[-1]) == (272, Advance(plan.n_bytes, plan.n_bytes))
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    source = read_header(model_path)
    assert path.stat().st_size == pytest.approx(
        source.size_bytes - plan.source_bytes + plan.n_bytes, abs=2**20
    )
    header = read_header(path)
    assert (header.quant, header.n_params) == ("Q4_0", source.n_params)
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert types["blk.0.attn_q.weight"] == "Q4_0"


def test_quants_are_not_taken_unless_allowed(
    errand: Errand, model_path: Path, tmp_path: Path
) -> None:
    wanted = replace(job(model_path, "Q8_0", tmp_path / "made.gguf"), requantize=False)
    plan = errand.ask(wanted, Quantized, print)
    assert plan.requantized == ("q4_1",)
    with pytest.raises(CommandError, match="requantizing from type q4_1 is disabled"):
        errand.ask(replace(wanted, plan=plan), Quantized, lambda _: None)
