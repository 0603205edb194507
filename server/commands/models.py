"""`corral models`: every model that is configured or found, and what it takes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import psutil
from pydantic import ByteSize
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.commands import running
from server.commands.console import NOTHING, below, table
from server.config import Config
from server.estimate import choose_n_ctx
from server.placement import Need, least
from server.pool.catalog import Entry, read_catalog


@dataclass(frozen=True, slots=True)
class Row:
    """One model. None: nobody knows."""

    id: str
    path: str
    quant: str
    bits_per_weight: float | None
    size_bytes: int | None
    n_ctx: int | None
    """Tokens of context that one request gets."""
    ram_bytes: int | None
    """That it takes at the least."""
    state: str | None
    """As a running server says."""
    fault: str | None


def run(config: Config, as_json: bool, out: Console) -> None:
    """Print all models. Raises ConfigError."""
    states = running.states(config)
    found = rows(read_catalog(config).entries.values(), states or {})
    if as_json:
        out.out(json.dumps([asdict(row) for row in found], indent=2), highlight=False)
    elif found:
        out.print(report(found))
        below(out, _footer(config, states))
    else:
        out.print("no models are configured and none were found")


def rows(entries: Iterable[Entry], states: Mapping[str, str]) -> list[Row]:
    """The models of a catalogue; `states` by their ids."""
    total = Need(psutil.virtual_memory().total)
    return [_row(entry, states.get(entry.id), total) for entry in entries]


def _row(entry: Entry, state: str | None, total: Need) -> Row:
    header, engine = entry.header, entry.config.engine
    return Row(
        id=entry.id,
        path=str(entry.found.parts[0]),
        quant=entry.quant,
        bits_per_weight=round(header.bits_per_weight, 2) if header else None,
        size_bytes=header.size_bytes if header else None,
        n_ctx=choose_n_ctx(engine, header.n_ctx_train) if header else None,
        ram_bytes=least(header, engine, total).need.ram if header else None,
        state=state,
        fault=entry.fault,
    )


def _footer(config: Config, states: Mapping[str, str] | None) -> str:
    memory = "RAM: weights, the cells of one context, buffers and the worker's own"
    if states is not None:
        return memory
    server = config.server
    return f"{memory}\nNo server answers at {running.called(server.host)}:{server.port}: no states"


def report(rows: Sequence[Row]) -> Table:
    """One line for each; ids and faults are broken where a terminal is narrow."""
    shown = table()
    faults = any(row.fault for row in rows)
    shown.add_column("ID", overflow="fold")
    shown.add_column("Quant", no_wrap=True)
    for title in ("Bits", "Size", "Context", "RAM"):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("State", no_wrap=True)
    if faults:
        shown.add_column("Fault", overflow="fold", style="red")
    for row in rows:
        cells = [
            escape(row.id),
            row.quant or NOTHING,
            NOTHING if row.bits_per_weight is None else f"{row.bits_per_weight:.2f}",
            _size(row.size_bytes),
            NOTHING if row.n_ctx is None else f"{row.n_ctx:,}",
            _size(row.ram_bytes),
            row.state or NOTHING,
        ]
        shown.add_row(*cells, *([escape(row.fault or "")] if faults else []))
    return shown


def _size(n_bytes: int | None) -> str:
    return NOTHING if n_bytes is None else ByteSize(n_bytes).human_readable()
