"""Where commands print, and how their tables look."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

WIDTH = 400
"""Columns where the reader is another program: nothing is cut off or broken."""


NOTHING = "-"
"""In a cell: nobody knows."""


def out() -> Console:
    """Standard output."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    return console


def err() -> Console:
    """Standard error, for what is said of the work itself."""
    return Console(stderr=True)


def table() -> Table:
    """Without lines."""
    return Table(box=None, pad_edge=False, header_style="bold")


def below(out: Console, text: str) -> None:
    """Say what a table means."""
    out.print(text, style="dim", highlight=False, markup=False)


def counting(console: Console) -> Progress:
    """A bar with so many of so many; none where nobody looks on."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)
