"""The plot of measured quants."""

from dataclasses import replace
from pathlib import Path

import pytest

from server.commands.bench_quants import Row
from server.commands.quants_plot import draw
from server.errands import Measured
from server.errors import CommandError
from server.gguf import read_header


def row(source: Path, quant: str, size: int, divergence: float) -> Row:
    """One of `size` bytes and as many weights as `source`."""
    header = replace(read_header(source), quant=quant, size_bytes=size)
    measured = Measured((), 10, 12.0 + divergence, 0.5, divergence, 0.01, 0.9, 100.0, 20.0)
    return Row(Path(f"a.{quant}.gguf"), header, measured)


@pytest.mark.parametrize("smallest", [0.25, 0.0])
def test_every_quant_is_in_the_picture(smallest: float, model_path: Path, tmp_path: Path) -> None:
    rows = [
        row(model_path, "Q8_0", 140_000_000, 0.0),
        row(model_path, "Q4_K_M", 90_000_000, 0.02),
        row(model_path, "Q2_K", 60_000_000, smallest),
    ]
    path = tmp_path / "plot.svg"
    draw(path, rows)
    drawn = path.read_text()
    for item in rows:
        assert f"<!-- {item.header.quant} -->" in drawn
    # Powers of ten along an axis: it is logarithmic, which it cannot be with a zero.
    assert ("10^{" in drawn) == (smallest > 0)


def test_one_file_is_drawn_too(model_path: Path, tmp_path: Path) -> None:
    draw(tmp_path / "plot.png", [row(model_path, "Q8_0", 140_000_000, 0.0)])
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_an_unknown_ending_is_told(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot write .*plot.gguf: .*not supported"):
        draw(tmp_path / "plot.gguf", [row(model_path, "Q8_0", 140_000_000, 0.0)])
