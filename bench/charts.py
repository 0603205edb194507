"""The ratios as pictures: one chart for each peer, with the bars to reach drawn in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import Comparison


def draw(folder: Path, comparisons: Sequence[Comparison], titles: dict[str, str]) -> list[Path]:
    """Write one PNG for each peer; none without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for peer in dict.fromkeys(item.peer for item in comparisons):
        path = folder / f"{peer}.png"
        _draw_peer(path, titles.get(peer, peer), [c for c in comparisons if c.peer == peer])
        paths.append(path)
    return paths


def _draw_peer(path: Path, title: str, comparisons: Sequence[Comparison]) -> None:
    from matplotlib import pyplot

    plot: Any = pyplot
    figure, axes = plot.subplots(figsize=(9, 1.2 + 0.45 * len(comparisons)))
    rows = range(len(comparisons))
    medians = [item.median for item in comparisons]
    errors = (
        [item.median - min(item.ratios) for item in comparisons],
        [max(item.ratios) - item.median for item in comparisons],
    )
    colours = ["#c0392b" if item.verdict == "NO" else "#2c7fb8" for item in comparisons]
    axes.barh(rows, medians, xerr=errors, height=0.6, color=colours, ecolor="#444444", capsize=3)
    for row, item in zip(rows, comparisons, strict=True):
        for bar in () if item.bar is None else item.bar.edges:
            axes.plot([bar] * 2, [row - 0.42, row + 0.42], color="black", linewidth=2)
        axes.annotate(f" {item.median:.2f}", (max(item.ratios), row), va="center")
    axes.axvline(1.0, color="#999999", linestyle=":", linewidth=1)
    axes.set_yticks(rows, [f"{item.scenario}: {item.metric}" for item in comparisons])
    axes.invert_yaxis()
    axes.set_xlabel("ours / peer: median, whiskers to the extremes; the black mark is the bar")
    axes.set_title(f"against {title}")
    axes.margins(x=0.12)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plot.close(figure)
