"""What a placed model takes of RAM and of each GPU, as llama.cpp carries a placement out.

* Of n offloaded layers the output counts as the last, and the blocks just before it are the others.
  The embedding of tokens stays in RAM; where it is the output's matrix too, a GPU gets a copy.
* The first of several GPUs takes the first of the offloaded layers, each as many as its share says.
  With `row`, every matrix is cut over all GPUs instead; with `none`, `main_gpu` takes everything.
* Cells lie with their layer, or all in RAM where the settings keep them there.
* Experts of the first layers can stay in RAM while all else of these layers goes.
* Every device computes in buffers of its own. The first GPU also has room for one tensor that lies
  in RAM: prompts are computed there, with the weights brought over one after the other.
* Without an offloaded layer no GPU is used at all.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from server import estimate as sizes
from server.engine_config import EngineConfig
from server.gguf import Header
from server.layout import Layout, choose_attention, has_amx, padded, slot_cells

MARGIN = 0.05
"""Share of a memory that is left to others."""

GPU_BYTES = 512 * 2**20
"""On each GPU, for its driver's context, kernels and work spaces, and as a margin. Not measured."""

GPU_WORKER_BYTES = 256 * 2**20
"""In RAM, for the libraries that drive GPUs; those of RPC servers are elsewhere. Not measured."""

N_COPIES = 4
"""Of what goes into a forward, where several GPUs that hold everything work as a pipeline."""


class Need(NamedTuple):
    """Bytes of RAM and of each GPU: what is taken, or what is free."""

    ram: int
    gpus: tuple[int, ...] = ()
    servers: frozenset[str] = frozenset()
    """RPC servers, host:port: each has one client at a time, so nobody takes a part of one."""

    def plus(self, other: "Need") -> "Need":
        """Both together."""
        gpus = _each(self.gpus, other.gpus, 1)
        return Need(self.ram + other.ram, gpus, self.servers | other.servers)

    def less(self, other: "Need") -> "Need":
        """What remains; negative where it does not suffice."""
        gpus = _each(self.gpus, other.gpus, -1)
        return Need(self.ram - other.ram, gpus, self.servers - other.servers)

    def times(self, factor: float) -> "Need":
        """So much of it, or more."""
        gpus = tuple(round(n * factor) for n in self.gpus)
        return Need(round(self.ram * factor), gpus, self.servers)

    def positive(self) -> "Need":
        """With nothing where it is negative."""
        return Need(max(0, self.ram), tuple(max(0, n) for n in self.gpus), self.servers)

    def within(self, room: "Need") -> bool:
        """Whether there is so much room everywhere."""
        left = room.less(self)
        return min((left.ram, *left.gpus)) >= 0 and self.servers <= room.servers


def _each(ours: Sequence[int], theirs: Sequence[int], sign: int) -> tuple[int, ...]:
    n = max(len(ours), len(theirs))
    pad = [*ours] + [0] * (n - len(ours)), [*theirs] + [0] * (n - len(theirs))
    return tuple(a + sign * b for a, b in zip(*pad, strict=True))


class Parts(NamedTuple):
    """What a placed model takes, by what it is for."""

    process: Need
    """The worker without its model, and what drivers of GPUs take."""
    weights: Need
    cells: Need
    """K and V; what is noted of each cell is the process's."""
    buffers: Need

    @property
    def total(self) -> Need:
        """All of them together."""
        return self.process.plus(self.weights).plus(self.cells).plus(self.buffers)


def place(
    header: Header,
    config: EngineConfig,
    n_gpu_layers: int,
    layout: Layout,
    n_gpus: int,
    shares: Sequence[float] = (),
    n_cpu_moe: int | None = None,
) -> Parts:
    """What a model takes with `n_gpu_layers` of its layers, the output among them, on `n_gpus`.

    `shares`: each GPU's part, as `shares_of` gives them; none: all the same.
    `n_cpu_moe`: layers, from the first, whose experts stay in RAM; None: as configured.
    """
    n_layers = min(n_gpu_layers, header.n_layer + 1) if n_gpus else 0
    config = choose_attention(config, n_layers > 0, has_amx())
    moe = cpu_moe(config, header.n_layer) if n_cpu_moe is None else n_cpu_moe
    homes = _homes(n_layers, header.n_layer + 1, shares or [1.0] * n_gpus)
    rows = shares if config.split_mode == "row" else ()
    return Parts(
        process=_process(_Taken(n_gpus), header, config, homes, layout),
        weights=_weights(_Taken(n_gpus, rows), header, homes, moe),
        cells=_cells(_Taken(n_gpus), header, config, homes, layout),
        buffers=_buffers(_Taken(n_gpus), header, config, homes, layout, moe),
    )


def cpu_moe(config: EngineConfig, n_layer: int) -> int:
    """Layers whose experts the settings keep in RAM."""
    return n_layer if config.n_cpu_moe == "all" else min(config.n_cpu_moe, n_layer)


def shares_of(config: EngineConfig, gpus: Sequence[int]) -> tuple[float, ...]:
    """Each GPU's part of a model, by the settings or by its free bytes; none without a GPU."""
    if config.split_mode == "none":
        return tuple(float(i == config.main_gpu) for i in range(len(gpus)))
    said = (*config.tensor_split, *[0.0] * len(gpus))[: len(gpus)]
    shares = said if any(said) else tuple(max(0.0, n) for n in gpus)
    return shares if any(shares) else (1.0,) * len(gpus)


Home = int | None
"""The number of a GPU; None: RAM."""


def _homes(n_layers: int, n_all: int, shares: Sequence[float]) -> list[Home]:
    """Where each block is, and the output behind them."""
    if n_layers == 0:
        return [None] * n_all
    ends = [end / sum(shares) for end in accumulate(shares)]
    there: list[Home] = [
        min(bisect_right(ends, number / n_layers), len(ends) - 1) for number in range(n_layers)
    ]
    return [None] * (n_all - n_layers) + there


class _Taken:
    """A sum for each memory. With `rows`, what a GPU is given is cut over all."""

    def __init__(self, n_gpus: int, rows: Sequence[float] = ()):
        self.ram = 0.0
        self.gpus = [0.0] * n_gpus
        self._rows = [share / sum(rows) for share in rows]

    def put(self, home: Home, n_bytes: float) -> None:
        """Somewhere, or in rows."""
        if home is None:
            self.ram += n_bytes
        elif not self._rows:
            self.gpus[home] += n_bytes
        else:
            for number, share in enumerate(self._rows):
                self.gpus[number] += share * n_bytes

    @property
    def need(self) -> Need:
        """In whole bytes."""
        return Need(round(self.ram), tuple(map(round, self.gpus)))


def _process(
    taken: _Taken, header: Header, config: EngineConfig, homes: Sequence[Home], layout: Layout
) -> Need:
    taken.put(None, sizes.worker_bytes(header))
    taken.put(None, _n_cells(config, layout) * sizes.CELL_BYTES)
    used = {home for home in homes if home is not None}
    taken.put(None, GPU_WORKER_BYTES if used and not config.rpc_servers else 0)
    for home in used:
        taken.put(home, GPU_BYTES)
    return taken.need


def _weights(taken: _Taken, header: Header, homes: Sequence[Home], moe: int) -> Need:
    taken.put(None, header.input_bytes)
    for number, (layer, home) in enumerate(zip(header.layers, homes, strict=False)):
        stays = layer.experts if number < moe else 0
        taken.put(None, stays)
        taken.put(home, layer.weights - stays)
    taken.put(homes[-1], header.output_bytes)
    if homes[-1] is not None:
        taken.put(homes[-1], header.tied_bytes)
    return taken.need


def _cells(
    taken: _Taken, header: Header, config: EngineConfig, homes: Sequence[Home], layout: Layout
) -> Need:
    n_cells = _n_cells(config, layout)
    for layer, home in zip(header.layers, homes, strict=False):
        taken.put(home if config.kv_offload else None, n_cells * sizes.cell_bytes(layer, config))
    return taken.need


def _n_cells(config: EngineConfig, layout: Layout) -> int:
    """Of all slots."""
    return n_seen(config, layout) * (config.n_slots if layout.n_cells is None else 1)


def n_seen(config: EngineConfig, layout: Layout) -> int:
    """Cells that a token can look at; `config` says how attention is computed."""
    if layout.n_cells is None:
        return slot_cells(config, layout.n_ctx)
    return padded(layout.n_cells)


def _buffers(
    taken: _Taken,
    header: Header,
    config: EngineConfig,
    homes: Sequence[Home],
    layout: Layout,
    moe: int,
) -> Need:
    layers = sizes.layer_buffer(header, config, n_seen(config, layout))
    mask = sizes.mask_bytes(config, n_seen(config, layout))
    taken.put(None, sizes.output_buffer(header, sizes.output_rows(config, config.n_slots)))
    used = sorted({home for home in homes if home is not None})
    some_in_ram = None in homes or (moe > 0 and header.has_experts)
    if not used or some_in_ram or not config.kv_offload:
        taken.put(None, layers)
    if not used:
        return taken.need
    copies = 1 if some_in_ram or len(used) == 1 or config.split_mode == "row" else N_COPIES
    inputs = mask + sizes.FLOAT * config.ubatch * header.n_embd
    taken.put(None, inputs)
    for home in used:
        behind = sizes.logits_buffer(header, config) if home == homes[-1] else 0
        taken.put(home, (copies - 1) * inputs + max(layers, behind))
    if some_in_ram:
        taken.put(used[0], header.largest_bytes)
    return taken.need
