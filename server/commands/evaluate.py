"""`corral eval`: what a model is worth, by lm-evaluation-harness or by a judge."""

import json
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.commands import mt_bench
from server.commands.console import NOTHING, below, counting, table
from server.commands.endpoint import Endpoint, reached
from server.commands.failure import CommandError
from server.commands.harness import Harness, Order, Results, folder
from server.commands.judge import Judge
from server.config import Config, ConfigError

MOST_TOKENS = 1024
"""Of an answer to one of MT-bench's questions, as it has it."""

EXIT_TERMINATED = 128 + signal.SIGTERM

FIELDS: Mapping[str, tuple[str, ...]] = {
    "gsm8k": ("question", "answer"),
    "truthful": ("question", "mc1_targets", "mc2_targets"),
}
"""What each line of --data has, by how the names of tasks begin."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which model is asked, and where."""

    model: str
    url: str | None = None
    """None: at the configured address, or at a server that is started for this."""
    key: str = ""
    concurrent: int = 4


@dataclass(frozen=True, slots=True)
class Judging:
    """Who rates. No `url`: a model of the server that is asked, by the same key."""

    model: str
    url: str | None = None
    key: str = ""
    enforced: bool = False

    def judge(self, asked: Endpoint) -> Judge:
        """With everything known."""
        if self.url is None:
            return Judge(Endpoint(asked.url, self.model, asked.key), self.enforced)
        url = self.url.rstrip("/").removesuffix("/v1")
        return Judge(Endpoint(url, self.model, self.key), self.enforced)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    task: str
    metric: str
    filter: str
    """How the answer was read: strict-match, flexible-extract, none..."""
    value: float
    stderr: float | None
    n_shot: int | None
    n: int | None
    """Questions that were asked."""


@dataclass(frozen=True, slots=True)
class Printing:
    """Where results go."""

    out: Console
    status: Console
    as_json: bool = False
    folder: Path | None = None
    """For files with all samples."""


def run(
    order: Order, python: str, place: Place, read: Callable[[], Config], printing: Printing
) -> None:
    """Evaluate with lm-evaluation-harness. Raises CommandError, ConfigError, CorralError."""
    if order.data is not None:
        check_data(order.tasks, Path(order.data))
    with _ended_by_sigterm(), Harness(python, place.key) as harness:
        with printing.status.status("looking for the task"):
            harness.prepare(order)
        with (
            _reached(place, read, printing.status) as endpoint,
            counting(printing.status) as progress,
        ):
            bar = progress.add_task("preparing", total=None)

            def advance(done: int, total: int) -> None:
                progress.update(bar, description="asking", completed=done, total=total)

            results = harness.evaluate(endpoint, advance)
        _tell_cuts(harness.cuts, printing.status)
    found = rows(results)
    if printing.folder is not None:
        write(printing.folder, results)
    if printing.as_json:
        _print_json(printing.out, [asdict(row) for row in found])
        return
    printing.out.print(report(found))
    if printing.folder is not None:
        below(printing.out, f"all answers: {printing.folder}")


def run_mt_bench(
    questions: list[mt_bench.Question],
    place: Place,
    judging: Judging,
    max_tokens: int | None,
    read: Callable[[], Config],
    printing: Printing,
) -> None:
    """Answer and rate. Raises CommandError, ConfigError, CorralError."""
    n_steps = 2 * sum(len(question.turns) for question in questions)
    with _ended_by_sigterm(), _reached(place, read, printing.status) as endpoint:
        judge = judging.judge(endpoint)
        bench = mt_bench.Bench(endpoint, judge, place.concurrent, max_tokens or MOST_TOKENS)
        with counting(printing.status) as progress:
            bar = progress.add_task("answering and judging", total=n_steps)
            turns = bench.run(questions, lambda: progress.advance(bar))
    found = mt_bench.scores(turns)
    if printing.folder is not None:
        mt_bench.write(printing.folder, turns, found)
    if printing.as_json:
        _print_json(printing.out, [asdict(score) for score in found])
    else:
        printing.out.print(mt_bench.report(found))
    for fault in mt_bench.faults(turns):
        printing.status.print(f"corral: {fault}", highlight=False, markup=False)
    if printing.folder is not None:
        below(printing.status, f"answers and judgements: {printing.folder}")
    if not found[-1].n_rated:
        raise CommandError("nothing was rated")


def check_data(tasks: tuple[str, ...], path: Path) -> None:
    """That --data goes with one of our tasks and has its form. Raises CommandError, ConfigError."""
    fields = next((FIELDS[name] for name in FIELDS if tasks[0].startswith(name)), None)
    ours = {file.stem for file in folder().glob("*.yaml")}
    if len(tasks) != 1 or tasks[0] not in ours or fields is None:
        raise ConfigError(f"--data goes with one of {', '.join(sorted(ours))}")
    lines = mt_bench.read_lines(path)
    for n, line in enumerate(lines, 1):
        try:
            found: object = json.loads(line)
        except ValueError as error:
            raise CommandError(f"{path}, line {n}: not JSON: {error}") from error
        entry = cast("dict[str, object]", found) if isinstance(found, dict) else {}
        if missing := [field for field in fields if field not in entry]:
            raise CommandError(f"{path}, line {n}: {', '.join(missing)} is missing")
    if not lines:
        raise CommandError(f"{path}: no questions")


def rows(results: Results) -> list[Row]:
    """Every figure of every task; those of a group after those of its tasks, as they come."""
    found: list[Row] = []
    for task, figures in results.results.items():
        samples = results.n_samples.get(task)
        for name, value in figures.items():
            metric, comma, filter = name.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = figures.get(f"{metric}_stderr,{filter}")
            found.append(
                Row(
                    task,
                    metric,
                    filter,
                    float(value),
                    float(stderr) if isinstance(stderr, int | float) else None,
                    results.n_shot.get(task),
                    samples.effective if samples else None,
                )
            )
    return found


def report(found: list[Row]) -> Table:
    """One line for each figure."""
    shown = table()
    shown.add_column("Task", overflow="fold")
    for title in ("Metric", "Filter"):
        shown.add_column(title, no_wrap=True)
    for title in ("Value", "Stderr", "Shots", "N"):
        shown.add_column(title, justify="right", no_wrap=True)
    for row in found:
        shown.add_row(
            escape(row.task),
            escape(row.metric),
            NOTHING if row.filter == "none" else escape(row.filter),
            f"{row.value:.4f}",
            NOTHING if row.stderr is None else f"± {row.stderr:.4f}",
            NOTHING if row.n_shot is None else str(row.n_shot),
            NOTHING if row.n is None else f"{row.n:,}",
        )
    return shown


def write(folder: Path, results: Results) -> None:
    """results.json, and for each task a file of all questions and answers. Raises CommandError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps([asdict(row) for row in rows(results)], indent=2)
        (folder / "results.json").write_text(text, encoding="utf-8")
        for task, samples in results.samples.items():
            lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
            name = task.replace("/", "_")
            (folder / f"samples_{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{folder}: {error.strerror}") from error


def _reached(
    place: Place, read: Callable[[], Config], status: Console
) -> AbstractContextManager[Endpoint]:
    return reached(read, place.model, place.url, place.key, place.concurrent, status)


def _tell_cuts(cuts: Sequence[str], status: Console) -> None:
    """Nothing is cut in silence."""
    if cuts:
        text = f"corral: {len(cuts)} prompts were cut to the model's context: {cuts[0]}"
        status.print(text, highlight=False, markup=False)


def _print_json(out: Console, value: object) -> None:
    out.out(json.dumps(value, indent=2), highlight=False)


@contextmanager
def _ended_by_sigterm() -> Generator[None]:
    """Let SIGTERM end what was started, too."""

    def end(*_: object) -> None:
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
