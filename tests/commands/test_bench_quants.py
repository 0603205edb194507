"""`corral bench-quants` on the real model and a quant of it."""

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from server.commands import bench_quants
from server.commands.bench_quants import Options, run
from server.commands.errand import Errand
from server.errands import Quantize, Quantized
from server.errors import CommandError, ModelLoadError

TEXT = (
    "The river rises in the hills above the town and runs for sixty miles to the sea. In spring "
    "it is full of melted snow, and the mills along its banks work day and night. In summer it "
    "is so low that children cross it on foot. People have fished there for a thousand years, "
    "and the oldest bridge was built by monks who wanted to reach the market on the other side."
)

NUMBER = r"([\d.,]+)"
CELLS = re.compile(
    rf"^(\S+) +(\S+) +{NUMBER}MiB +{NUMBER} +{NUMBER} +{NUMBER} +{NUMBER} ± {NUMBER}"
    rf"(?: +{NUMBER} ± {NUMBER} +{NUMBER}%)?$"
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def bench(files: list[Path], options: Options, terminal: bool = False) -> tuple[str, str]:
    """What goes to the standard output, and how far it says it is."""
    out, status = StringIO(), StringIO()
    consoles = Console(file=out, width=200), Console(file=status, force_terminal=terminal)
    run(files, options, *consoles)
    return out.getvalue(), status.getvalue()


def test_quants_are_compared_with_the_largest(model_path: Path, text: Path, tmp_path: Path) -> None:
    larger = tmp_path / "demo.Q8_0.gguf"
    with Errand("server.engine.quantizing") as errand:
        job = Quantize(str(model_path), "Q8_0", str(larger), 1, True)
        plan = errand.ask(job, Quantized, lambda _: None)
        errand.ask(replace(job, plan=plan), Quantized, lambda _: None)
    same = tmp_path / "same[1].gguf"
    same.symlink_to(larger)
    options = Options(text, n_ctx=32, n_threads=1, plot=tmp_path / "plot.png")
    out, status = bench([model_path, larger, same], options, terminal=True)
    rows = [match.groups() for line in out.splitlines() if (match := CELLS.match(line.rstrip()))]
    assert [row[:3] for row in rows] == [
        ("demo.Q8_0.gguf", "Q8_0", "138.1"),
        ("same[1].gguf", "Q8_0", "138.1"),
        (model_path.name, "Q4_1", "93.8"),
    ]
    reference, itself, source = rows
    assert reference[8:] == (None, None, None)
    assert itself[8:] == ("0.0000", "0.0000", "100.0")
    assert itself[6:8] == reference[6:8]
    assert 0 < float(source[8]) < 0.05
    assert float(source[6]) == pytest.approx(float(reference[6]), rel=0.05)
    assert float(reference[3]) == pytest.approx(8.61, abs=0.01)
    assert "tokens scored; KL divergence in nats per token from demo.Q8_0.gguf" in out
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "demo.Q8_0.gguf" in status


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(_: str) -> None: ...

    monkeypatch.setattr(bench_quants, "find_spec", find)
    with pytest.raises(CommandError, match=r"needs matplotlib: pip install 'corral\[bench\]'"):
        bench([tmp_path / "gone.gguf"], Options(text, plot=tmp_path / "plot.png"))


def test_a_plot_into_nowhere_is_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nowhere: no such folder"):
        bench([tmp_path / "gone.gguf"], Options(text, plot=tmp_path / "nowhere" / "plot.png"))


def test_files_that_cannot_be_read_are_told(model_path: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="gone: No such file"):
        bench([model_path], Options(tmp_path / "gone"))
    text.write_bytes(b"abc\xff")
    with pytest.raises(CommandError, match="not UTF-8 at byte 3"):
        bench([model_path], Options(text))
    text.write_text(TEXT)
    with pytest.raises(ModelLoadError, match=r"gone.gguf: No such file"):
        bench([model_path, tmp_path / "gone.gguf"], Options(text))


def test_what_cannot_be_measured_is_told(model_path: Path, text: Path) -> None:
    with pytest.raises(CommandError, match=r"9,000 tokens, but it was .* context of 8,192"):
        bench([model_path], Options(text, n_ctx=9000, n_threads=1))
    text.write_text("Hello.")
    with pytest.raises(CommandError, match=r"the text has \d tokens, at least 8 are needed"):
        bench([model_path], Options(text, n_ctx=32, n_threads=1))
