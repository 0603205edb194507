"""Oracle: what only llama.cpp knows, asked of it in a process of its own while a model waits."""

from server import placement
from server.need import Need, place
from server.placement import Placement
from server.pool.catalog import Entry
from server.pool.devices import Devices, find
from server.pool.dry_run import beyond, dry_run

DRY_RUN_S = 10.0
"""Seconds that a dry run may take; half of one is usual."""


class Oracle:
    """Answers questions about models."""

    async def devices(self, entry: Entry) -> Devices:
        """What the model computes on. Raises ModelLoadError, which names what is at fault."""
        return await find(entry.config.engine)

    async def beyond(self, entry: Entry, placed: Placement) -> Need:
        """What the placement takes beyond its estimate. Raises EngineError."""
        header, engine = entry.header, entry.config.engine
        assert header is not None
        settled = placement.settle(engine, placed)
        path, n_layers = entry.found.parts[0], placed.n_gpu_layers
        told = await dry_run(path, settled, n_layers, placed.layout, timeout_s=DRY_RUN_S)
        n_gpus, shares = len(placed.need.gpus), placed.tensor_split
        parts = place(header, engine, n_layers, placed.layout, n_gpus, shares, placed.n_cpu_moe)
        return beyond(header, engine, parts, told)
