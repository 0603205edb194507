"""Where commands print, and how their tables look."""

from rich.console import Console
from rich.table import Table

WIDTH = 400
"""Columns where the reader is another program: nothing is cut off or broken."""


def out() -> Console:
    """Standard output."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    return console


def err() -> Console:
    """Standard error, for what is said of the work itself."""
    return Console(stderr=True)


def table(caption: str | None = None) -> Table:
    """Without lines; what it says of itself stands below."""
    return Table(
        box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left"
    )
