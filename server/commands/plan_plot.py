"""The plot of `corral plan`: RAM and VRAM over the number of offloaded layers."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

from server.errors import InvalidRequest
from server.pool.plan import Plan

GIB = 2**30


class Axes(Protocol):
    """What is used of matplotlib's, whose own types are unfinished."""

    def bar(
        self, x: Sequence[int], height: Sequence[float], *, bottom: Sequence[float], label: str
    ) -> object: ...
    def axhline(self, y: float, *, linestyle: str, color: str, label: str) -> object: ...
    def axvline(self, x: float, *, linestyle: str, color: str, label: str) -> object: ...
    def set_title(self, label: str) -> object: ...
    def set_xlabel(self, xlabel: str) -> object: ...
    def set_ylabel(self, ylabel: str) -> object: ...
    def legend(self) -> object: ...
    def grid(self, *, alpha: float) -> object: ...


class Figure(Protocol):
    """The same."""

    def subplots(self) -> Axes: ...
    def savefig(self, fname: Path, *, dpi: int) -> object: ...


def draw(path: Path, plan: Plan) -> None:
    """Write the picture, its format by the file's ending. Raises InvalidRequest."""
    # A figure of its own: no window, no state of pyplot's.
    figure: Figure = import_module("matplotlib.figure").Figure((9, 5), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in plan.rows if row.n_cpu_moe == plan.rows[0].n_cpu_moe]
    layers = [row.n_gpu_layers for row in rows]
    bottom = [0.0] * len(rows)
    memories = [
        (column.title, [row.need.gpus[i] / GIB for row in rows])
        for i, column in enumerate(plan.columns)
    ]
    for label, heights in (*memories, ("RAM", [row.need.ram / GIB for row in rows])):
        axes.bar(layers, heights, bottom=bottom, label=label)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    if plan.free.gpus:
        free = sum(plan.free.gpus) / GIB
        axes.axhline(free, linestyle="--", color="black", label=f"{free:.1f} GiB of GPU free")
        chosen = plan.chosen
        experts = f", experts of {chosen.n_cpu_moe} in RAM" if chosen.n_cpu_moe else ""
        axes.axvline(
            chosen.n_gpu_layers, linestyle=":", color="black",
            label=f"auto: {chosen.n_gpu_layers}{experts}",
        )  # fmt: skip
    axes.set_title(f"{plan.id}: {plan.n_slots} x {plan.n_ctx:,} tokens")
    axes.set_xlabel("layers on the GPU")
    axes.set_ylabel("GiB")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot write {path}: {error}", "plot") from error
