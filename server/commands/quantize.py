"""`corral quantize`: the quants of one GGUF."""

import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ByteSize
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from server.commands.console import table
from server.commands.errand import Errand
from server.errands import Advance, Quantize, Quantized
from server.errors import CommandError, ModelLoadError
from server.filenames import family_of, part_of
from server.gguf import Header, read_header
from server.quants import ALIASES, NAMES

MODULE = "server.engine.quantizing"

SLACK = 2**20
"""Bytes for what a header grows, and for the rounding of a plan."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the file and the quants."""

    out_dir: Path | None = None
    """None: beside the source."""
    force: bool = False
    """Whether existing files may be replaced."""
    requantize: bool = False
    """Whether a source that is quantized already may be used."""
    n_threads: int | None = None


def run(source: Path, quants: str, options: Options, out: Console, status: Console) -> None:
    """Make all quants of the comma-separated list, print what came of it. Raises CorralError."""
    header = read_header(source)
    folder = options.out_dir or source.parent
    jobs = [
        Quantize(
            str(source),
            quant,
            str(target(source, quant, folder)),
            options.n_threads,
            options.requantize,
        )
        for quant in parse(quants)
    ]
    _check_targets(jobs, source, options.force)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{folder}: {error.strerror}") from error
    with Errand(MODULE) as errand:
        plans = [errand.ask(job, Quantized, lambda _: None) for job in jobs]
        _check_plans(jobs, plans, source, options.requantize)
        _check_disk(plans, header, folder)
        if again := sorted({kind for plan in plans for kind in plan.requantized}):
            status.print(
                f"warning: {source.name} is quantized already ({', '.join(again)}); what is made "
                "of it is worse than if made of the original weights",
                style="yellow",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
        for job, plan in zip(jobs, plans, strict=True):
            make(errand, replace(job, plan=plan), status)
    out.print(report(jobs, plans))


def parse(quants: str) -> list[str]:
    """The quants of a comma-separated list, each once. Raises CommandError."""
    names = [name.strip().upper() for name in quants.split(",") if name.strip()]
    names = list(dict.fromkeys(ALIASES.get(name, name) for name in names))
    for name in names:
        if name not in NAMES:
            raise CommandError(f"unknown quant {name}; known are {', '.join(NAMES)}")
    if not names:
        raise CommandError(f"no quants are named; known are {', '.join(NAMES)}")
    return names


def target(source: Path, quant: str, folder: Path) -> Path:
    """Where a quant goes: NAME.QUANT.gguf, whatever the source's own quant."""
    stem = part_of(source.name.removesuffix(".gguf")).stem
    return folder / f"{family_of(stem)}.{quant}.gguf"


def _check_targets(jobs: Sequence[Quantize], source: Path, force: bool) -> None:
    for job in jobs:
        path = Path(job.target)
        if not path.exists():
            continue
        if path.samefile(source):
            raise CommandError(f"{job.quant} would overwrite the source, {source}; set --out-dir")
        if not force:
            raise CommandError(f"{path} exists; --force replaces it")


def _check_plans(
    jobs: Sequence[Quantize], plans: Sequence[Quantized], source: Path, requantize: bool
) -> None:
    for job, plan in zip(jobs, plans, strict=True):
        if not plan.n_tensors:
            raise CommandError(f"{source} holds no weights")
        if plan.needs_matrix:
            raise CommandError(
                f"{job.quant} of {source.name} needs an importance matrix, which there is no way "
                "to give here; leave it out"
            )
        if plan.requantized and not requantize:
            raise CommandError(
                f"{source} is quantized already ({', '.join(plan.requantized)}); what is made of "
                "it is worse than if made of the original weights; --requantize makes it"
            )


def _check_disk(plans: Sequence[Quantized], header: Header, folder: Path) -> None:
    """All files must fit at once. Those that are replaced stay until the new ones are complete."""
    needed = sum(header.size_bytes - plan.source_bytes + plan.n_bytes + SLACK for plan in plans)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CommandError(
            f"{len(plans)} files of {_size(needed)} together do not fit: {folder} has "
            f"{_size(free)} free ({needed:,} of {free:,} bytes)"
        )


def make(errand: Errand, job: Quantize, status: Console) -> None:
    """Make one planned quant under another name, which becomes its own when it is complete."""
    assert job.plan is not None
    path = Path(job.target)
    part = path.with_name(f"{path.name}.part")
    try:
        with _bar(path.name, job.plan.n_bytes, status) as progress:
            errand.ask(replace(job, target=str(part)), Quantized, progress)
        read_header(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, ModelLoadError) as error:
        raise CommandError(f"cannot write {path}: {error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _bar(name: str, n_bytes: int, console: Console) -> "Generator[_Bar]":
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _Bar(progress, name, n_bytes)


class _Bar:
    """Shows how far a job is."""

    def __init__(self, progress: Progress, name: str, total: int):
        self._progress = progress
        self._task = progress.add_task(name, total=total)

    def __call__(self, advance: Advance) -> None:
        self._progress.update(self._task, completed=advance.done)


def report(jobs: Sequence[Quantize], plans: Sequence[Quantized]) -> Table:
    """The files made, and what of them is of another type than it should be."""
    shown = table()
    shown.add_column("File", overflow="fold")
    shown.add_column("Size", justify="right")
    shown.add_column("Bits/weight", justify="right")
    shown.add_column("Other types than wanted", overflow="fold")
    for job, plan in zip(jobs, plans, strict=True):
        path = Path(job.target)
        size = _size(path.stat().st_size)
        shown.add_row(escape(str(path)), size, f"{plan.bits_per_weight:.2f}", _fallbacks(plan))
    return shown


def _fallbacks(plan: Quantized) -> str:
    if not plan.fallbacks:
        return ""
    total = sum(item.n_tensors for item in plan.fallbacks)
    items = ", ".join(
        f"{item.wanted} to {item.made} for {item.n_tensors} with rows of {item.n_columns:,}"
        for item in plan.fallbacks
    )
    return f"{total} of {plan.n_tensors} tensors: {items}"


def _size(n_bytes: int) -> str:
    return ByteSize(n_bytes).human_readable()
