"""The plot of `corral bench-quants`: what each bit buys."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

from server.commands.bench_quants import Row
from server.errors import CommandError


class Axes(Protocol):
    """What is used of matplotlib's, whose own types are unfinished."""

    def scatter(self, x: Sequence[float], y: Sequence[float]) -> object: ...
    def annotate(
        self, text: str, xy: tuple[float, float], *, xytext: tuple[int, int], textcoords: str
    ) -> object: ...
    def set_title(self, label: str) -> object: ...
    def set_xlabel(self, xlabel: str) -> object: ...
    def set_yscale(self, value: str) -> object: ...
    def set_ylim(self, *, bottom: float) -> object: ...
    def grid(self, *, alpha: float) -> object: ...
    def margins(self, *, x: float, y: float) -> object: ...


class Figure(Protocol):
    """The same."""

    def subplots(self, nrows: int, ncols: int) -> tuple[Axes, Axes, Axes]: ...
    def savefig(self, fname: Path, *, dpi: int) -> object: ...


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write the picture, its format by the file's ending. Raises CommandError."""
    # A figure of its own: no window, no state of pyplot's.
    figure: Figure = import_module("matplotlib.figure").Figure((15, 4.5), layout="constrained")
    divergence, perplexity, speed = figure.subplots(1, 3)
    first, *others = rows
    _points(divergence, others, lambda row: row.measured.divergence)
    divergence.set_title(f"KL divergence from {first.header.quant}, nats per token")
    if others and all(row.measured.divergence > 0 for row in others):
        divergence.set_yscale("log")
    _points(perplexity, rows, lambda row: row.measured.perplexity)
    perplexity.set_title("perplexity")
    _points(speed, rows, lambda row: row.measured.decode)
    speed.set_title("tokens per second of one stream")
    speed.set_ylim(bottom=0)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot write {path}: {error}") from error


def _points(axes: Axes, rows: Sequence[Row], value: Callable[[Row], float]) -> None:
    """One point with its quant for each row, over bits per weight."""
    axes.scatter([row.header.bits_per_weight for row in rows], [value(row) for row in rows])
    for row in rows:
        axes.annotate(
            row.header.quant,
            (row.header.bits_per_weight, value(row)),
            xytext=(4, 4),
            textcoords="offset points",
        )
    axes.set_xlabel("bits per weight")
    axes.grid(alpha=0.3)
    axes.margins(x=0.3, y=0.15)
