"""`corral bench-quants`: quants of one model, compared on a text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ByteSize
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from server.commands.console import below, counting, table
from server.commands.errand import Errand
from server.commands.failure import CommandError
from server.errands import Advance, Measure, Measured
from server.gguf import Header, read_header

MODULE = "server.engine.measuring"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the files."""

    text: Path
    n_ctx: int = 512
    n_pieces: int | None = 16
    """Pieces of the text that are used; None: all."""
    n_threads: int | None = None
    plot: Path | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One file, and what was measured."""

    path: Path
    header: Header
    measured: Measured


def run(files: Sequence[Path], options: Options, out: Console, status: Console) -> None:
    """Measure all files, print a table and draw the plot. Raises CommandError."""
    draw = _plotter(options.plot) if options.plot else None
    text = _read(options.text)
    found = [(path, read_header(path)) for path in files]
    rows: list[Row] = []
    with TemporaryDirectory(prefix="corral-") as folder, counting(status) as progress:
        for path, header in sorted(found, key=lambda item: -item[1].size_bytes):
            job = Measure(
                path=str(path),
                text=text,
                n_ctx=options.n_ctx,
                n_pieces=options.n_pieces,
                n_threads=options.n_threads,
                logits=str(Path(folder) / "logits"),
                reference=rows[0].measured if rows else None,
            )
            rows.append(Row(path, header, _measure(job, progress)))
    out.print(report(rows))
    below(
        out,
        f"{rows[0].measured.n_scored:,} tokens scored; KL divergence in nats per token from "
        f"{rows[0].path.name}, ± standard errors",
    )
    if draw:
        draw(rows)


def _measure(job: Measure, progress: Progress) -> Measured:
    """In a process of its own, whose end gives the memory back."""
    task = progress.add_task(Path(job.path).name, total=None)

    def advance(report: Advance) -> None:
        progress.update(task, completed=report.done, total=report.total)

    with Errand(MODULE) as errand:
        return errand.ask(job, Measured, advance)


def _plotter(path: Path) -> Callable[[Sequence[Row]], None]:
    """Draws to `path`. Raises CommandError before anything is measured in vain."""
    from server.commands.quants_plot import draw

    if not find_spec("matplotlib"):
        raise CommandError("a plot needs matplotlib: pip install 'corral[bench]'")
    if not path.resolve().parent.is_dir():
        raise CommandError(f"{path.parent}: no such folder")
    return lambda rows: draw(path, rows)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: not UTF-8 at byte {error.start:,}") from error


def report(rows: Sequence[Row]) -> Table:
    """All rows against the first."""
    first = rows[0]
    shown = table()
    shown.add_column("File", overflow="fold")
    for title in (
        "Quant", "Size", "Bits/weight", "Prefill t/s", "Decode t/s", "Perplexity",
        "KL divergence", "Same best token",
    ):  # fmt: skip
        shown.add_column(title, justify="right")
    for row in rows:
        it = row.measured
        divergence = f"{it.divergence:.4f} ± {it.divergence_error:.4f}"
        shown.add_row(
            escape(row.path.name),
            row.header.quant,
            ByteSize(row.header.size_bytes).human_readable(),
            f"{row.header.bits_per_weight:.2f}",
            f"{it.prefill:,.1f}",
            f"{it.decode:,.1f}",
            f"{it.perplexity:.3f} ± {it.perplexity_error:.3f}",
            "" if row is first else divergence,
            "" if row is first else f"{it.same_best:.1%}",
        )
    return shown
