"""`corral pull`: fetch a model from the Hugging Face hub."""

from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import yaml
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from server.pool import machine
from server.pool import pull as pulling
from server.pool.offers import Choice
from server.pool.pull import Hub, Pulled


def run(
    repo: str,
    wanted: str | None,
    local_dir: Path | None,
    revision: str,
    say: Callable[[str], None],
) -> None:
    """Fetch it; `say` gets the paths and what to write into config.yaml. Raises CorralError."""
    order = pulling.order_of(repo, wanted, local_dir, revision)
    console = Console(stderr=True, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("", total=None, visible=False)

        def report(event: Choice | pulling.Progress) -> None:
            match event:
                case Choice():
                    bars.console.print(f"{order.repo}: {event.reason}", highlight=False)
                case pulling.Progress():
                    name = event.file.rpartition("/")[2]
                    bars.update(
                        bar, description=name, completed=event.done, total=event.size, visible=True
                    )
                case _:
                    assert_never(event)

        pulled = pulling.pull(Hub(), order, machine.room, report)
    for model in pulled:
        for path in model.paths:
            say(str(path))
    if lines := config_lines(pulled):
        say(f"\nIn config.yaml:\n\n{lines}")


def config_lines(pulled: list[Pulled]) -> str:
    """The entries of `models` for what was fetched; empty if no model is among it."""
    entries = {p.offer.id: {"path": str(p.path)} for p in pulled if p.offer.is_model}
    if not entries:
        return ""
    text = yaml.safe_dump({"models": entries}, sort_keys=False, allow_unicode=True, width=10_000)
    return text.rstrip("\n")
