"""Where the parts of a model go: its layers, its cells, and what that takes of each memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from server.config import EngineConfig
from server.estimate import bytes_per_cell, choose_n_ctx, estimate
from server.gguf import Header
from server.layout import Layout, choose_layout


class Need(NamedTuple):
    """Bytes of RAM and of each GPU: what is taken, or what is free."""

    ram: int
    gpus: tuple[int, ...] = ()

    def plus(self, other: "Need") -> "Need":
        """Both together."""
        return Need(self.ram + other.ram, _each(self.gpus, other.gpus, 1))

    def less(self, other: "Need") -> "Need":
        """What remains; negative where it does not suffice."""
        return Need(self.ram - other.ram, _each(self.gpus, other.gpus, -1))

    def within(self, room: "Need") -> bool:
        """Whether there is so much room everywhere."""
        left = room.less(self)
        return min(left.ram, *left.gpus) >= 0 if left.gpus else left.ram >= 0


def _each(ours: Sequence[int], theirs: Sequence[int], sign: int) -> tuple[int, ...]:
    n = max(len(ours), len(theirs))
    pad = [*ours] + [0] * (n - len(ours)), [*theirs] + [0] * (n - len(theirs))
    return tuple(a + sign * b for a, b in zip(*pad, strict=True))


@dataclass(frozen=True, slots=True)
class Placement:
    """How a model would be loaded, and what it would take."""

    n_gpu_layers: int
    layout: Layout
    need: Need


def least(header: Header, config: EngineConfig, total: Need) -> Need:
    """What the model takes at the least, where `total` is all that there is."""
    return _placed(header, config, 0, total).need


def choose(header: Header, config: EngineConfig, free: Need) -> Placement:
    """How the model is loaded into what is free."""
    fixed = _fixed(header, config)
    return _placed(header, config, max(0, free.ram - fixed), free)


def _fixed(header: Header, config: EngineConfig) -> int:
    parts = estimate(header, config, choose_n_ctx(config, header.n_ctx_train), config.n_slots)
    return parts.total - parts.cells


def _placed(header: Header, config: EngineConfig, room: int, _: Need) -> Placement:
    n_ctx = choose_n_ctx(config, header.n_ctx_train)
    per_cell = round(bytes_per_cell(header, config))
    layout = choose_layout(config, n_ctx, per_cell, room, on_gpu=False)
    n_cells = config.n_slots * n_ctx if layout.n_cells is None else layout.n_cells
    return Placement(0, layout, Need(_fixed(header, config) + n_cells * per_cell))
