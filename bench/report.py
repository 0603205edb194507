"""From measurements to ratios, and the ratios as a table, as Markdown and as JSON."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from bench import batched_bench
from bench.bars import Bar, bar_for
from bench.measure import MAX_BUSY_ELSEWHERE, Measurement, Outcome
from bench.scenarios import LOWER_IS_BETTER
from bench.servers import CORRAL

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Comparison:
    """Ours against one peer: the ratio of each round's figures, with both sides' medians.

    `ceiling` is llama-batched-bench / peer: what can be hoped for on this build of llama.cpp.
    """

    scenario: str
    metric: str
    peer: str
    ours: float
    theirs: float
    ratios: tuple[float, ...]
    bar: Bar | None
    ceiling: float | None

    @property
    def median(self) -> float:
        """The ratio ours / peer that counts."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        """Whether the median reaches the bar."""
        return "" if self.bar is None else "yes" if self.bar.holds(self.median) else "NO"

    @property
    def bar_text(self) -> str:
        """The bar with its direction."""
        return "" if self.bar is None else str(self.bar)


def by_key(measurements: Sequence[Measurement]) -> dict[Key, dict[int, float]]:
    """Figures by (scenario, metric, server), then by round."""
    figures: dict[Key, dict[int, float]] = {}
    for measurement in measurements:
        for metric, value in measurement.figures.items():
            key = (measurement.scenario, metric, measurement.server)
            figures.setdefault(key, {})[measurement.round] = value
    return figures


def compare(measurements: Sequence[Measurement]) -> Iterator[Comparison]:
    """Every comparison that the measurements allow, in the order in which they were taken."""
    figures = by_key(measurements)
    for (scenario, metric, peer), theirs in figures.items():
        our_figures = figures.get((scenario, metric, CORRAL), {})
        rounds = sorted(theirs.keys() & our_figures.keys())
        if peer == CORRAL or not rounds:
            continue
        yield Comparison(
            scenario,
            metric,
            peer,
            statistics.median(our_figures.values()),
            statistics.median(theirs.values()),
            tuple(our_figures[round_] / theirs[round_] for round_ in rounds),
            bar_for(scenario, metric, peer),
            _ceiling(figures.get((scenario, metric, batched_bench.NAME), {}), theirs),
        )


def _ceiling(best: dict[int, float], theirs: dict[int, float]) -> float | None:
    rounds = best.keys() & theirs.keys()
    if best is theirs or not rounds:
        return None
    return statistics.median(best[round_] / theirs[round_] for round_ in rounds)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


COMPARISON_HEAD = (
    *("scenario", "metric", "peer", "ours", "peer's"),
    *("ratio", "spread", "ceiling", "bar", "met"),
)
FIGURES_HEAD = ("scenario", "metric", "server", "median", "spread", "rounds")


def comparison_rows(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, ...]]:
    """The table of ratios as text."""
    for item in comparisons:
        spread = f"{min(item.ratios):.2f} to {max(item.ratios):.2f}"
        metric = item.metric + (" (lower is better)" if item.metric in LOWER_IS_BETTER else "")
        values = (_number(item.ours), _number(item.theirs), f"{item.median:.2f}", spread)
        ceiling = "" if item.ceiling is None else f"{item.ceiling:.2f}"
        yield (item.scenario, metric, item.peer, *values, ceiling, item.bar_text, item.verdict)


def figure_rows(measurements: Sequence[Measurement]) -> Iterator[tuple[str, ...]]:
    """Every server's own figures as text."""
    for (scenario, metric, server), rounds in sorted(by_key(measurements).items()):
        values = list(rounds.values())
        spread = f"{_number(min(values))} to {_number(max(values))}"
        median = _number(statistics.median(values))
        yield scenario, metric, server, median, spread, str(len(values))


def remarks(outcome: Outcome, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """What a reader must know before believing the figures."""
    for item in comparisons:
        if item.bar is not None and item.ceiling is not None and item.ceiling < item.bar.ratio:
            yield (
                f"{item.scenario}, {item.metric}, against {item.peer}: the bar of "
                f"{item.bar.ratio:g} is above llama.cpp's own {item.ceiling:.2f}, with no server."
            )
    disturbed = [item for item in outcome.measurements if item.busy_elsewhere > MAX_BUSY_ELSEWHERE]
    if disturbed:
        worst = max(item.busy_elsewhere for item in disturbed)
        yield (
            f"{len(disturbed)} of {len(outcome.measurements)} measurements were disturbed: others "
            f"used up to {worst:.2f} cores meanwhile. Run again on a quiet machine."
        )
    for failure in outcome.failures:
        yield (f"round {failure.round + 1}, {failure.server}, {failure.scenario}: {failure.reason}")


def rich_table(title: str, head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Table:
    """A table for the terminal; rows that miss their bar stand out."""
    table = Table(*head, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row, style="red" if row[-1] == "NO" else None)
    return table


def _markdown(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def write(
    folder: Path, about: dict[str, str], outcome: Outcome, comparisons: Sequence[Comparison]
) -> None:
    """Write results.json and results.md into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"about": about, **asdict(outcome), "comparisons": [asdict(c) for c in comparisons]}
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [f"* {name}: {value}" for name, value in about.items()]
    lines += ["", *(f"> {remark}" for remark in remarks(outcome, comparisons)), ""]
    if comparisons:
        lines += [*_markdown(COMPARISON_HEAD, comparison_rows(comparisons)), ""]
    lines += _markdown(FIGURES_HEAD, figure_rows(outcome.measurements))
    (folder / "results.md").write_text("\n".join(lines) + "\n")
