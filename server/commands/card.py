"""`corral models --card`: the quants of one model, as their cards list them.

Such cards count in GB of 10^9 bytes, and allow 2.5 GB beyond the file, whatever the context. Our
own estimate stands beside that.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.commands.console import NOTHING, below, table
from server.config import Config
from server.engine_config import EngineConfig
from server.estimate import choose_n_ctx
from server.placement import Need, least
from server.pool.family import Family, Member, family_at
from server.quants import USE_CASES, bits_of

GB = 10**9
BEYOND = 25 * GB // 10
"""Bytes that a card allows for all but the file."""


@dataclass(frozen=True, slots=True)
class Row:
    """One quant. None: nobody knows."""

    name: str
    quant: str
    bits: int | None
    size_bytes: int
    max_ram_bytes: int
    use_case: str
    n_ctx: int | None
    """Tokens of context that the estimate is for."""
    estimate_bytes: int | None


def run(place: str, config: Config, n_ctx: int | None, as_json: bool, out: Console) -> None:
    """Print the card of a folder or a repository, estimated as found models are run.

    `n_ctx`: tokens of context; None: as the server would choose. Raises CorralError.
    """
    engine = config.found.engine
    if n_ctx is not None:
        engine = engine.model_copy(update={"n_ctx": n_ctx})
    family = family_at(place)
    total = Need(psutil.virtual_memory().total)
    rows = [_row(member, engine, total) for member in family.members]
    if as_json:
        out.out(json.dumps([asdict(row) for row in rows], indent=2), highlight=False)
    else:
        out.print(report(rows))
        below(out, _footer(family, rows))


def _row(member: Member, engine: EngineConfig, total: Need) -> Row:
    header = member.header
    parts = f" ({member.n_parts} parts)" if member.n_parts > 1 else ".gguf"
    return Row(
        name=f"{member.name}{parts}",
        quant=member.quant,
        bits=bits_of(member.quant),
        size_bytes=member.size_bytes,
        max_ram_bytes=member.size_bytes + BEYOND,
        use_case=USE_CASES.get(member.quant, ""),
        n_ctx=choose_n_ctx(engine, header.n_ctx_train) if header else None,
        estimate_bytes=least(header, engine, total).need.ram if header else None,
    )


def _footer(family: Family, rows: Sequence[Row]) -> str:
    contexts = sorted({row.n_ctx for row in rows if row.n_ctx is not None})
    lines = [
        f"The models {family.origin}.",
        "Max RAM: size + 2.5 GB, as such tables have it; 1 GB: 1,000,000,000 bytes.",
    ]
    if contexts:
        tokens = " or ".join(f"{n_ctx:,}" for n_ctx in contexts)
        lines.append(
            f"Estimate: weights, the cells of a context of {tokens} tokens, buffers and the worker."
        )
    return "\n".join([*lines, *family.faults])


def report(rows: Sequence[Row]) -> Table:
    """One line for each; names and use cases are broken where a terminal is narrow."""
    shown = table()
    shown.add_column("Name", overflow="fold")
    shown.add_column("Quant method", overflow="fold")
    for title in ("Bits", "Size", "Max RAM required"):
        shown.add_column(title, justify="right")
    shown.add_column("Use case", overflow="fold")
    shown.add_column("Estimate", justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            escape(row.name),
            row.quant or NOTHING,
            NOTHING if row.bits is None else str(row.bits),
            _gb(row.size_bytes),
            _gb(row.max_ram_bytes),
            row.use_case,
            NOTHING if row.estimate_bytes is None else _gb(row.estimate_bytes),
        )
    return shown


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / GB:.2f} GB"
