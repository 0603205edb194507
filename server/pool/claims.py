"""Claims: what a model asks for of the memory, and how it is loaded into what it is given."""

import logging
from dataclasses import dataclass, replace

from server import placement
from server.config import ModelConfig
from server.need import Need
from server.pool.catalog import Entry
from server.pool.footprints import Footprint, Footprints, key_of

PLACES = ("n_gpu_layers", "n_cpu_moe", "tensor_split", "devices")
"""Settings that say what lies where."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """A model as it is loaded, with all sizes decided, and what that takes."""

    config: ModelConfig
    need: Need
    spare: int
    """Of `need`, bytes that it only takes as it serves."""
    estimated: int
    """Bytes of RAM that its load was to take, before what was measured corrected that."""
    key: str
    """Of its footprint."""


class Claims:
    """Estimates, corrected by what the same model took when it was last loaded."""

    def __init__(self, footprints: Footprints):
        self._footprints = footprints

    def least(self, entry: Entry, total: Need) -> Need:
        """What the model must have, where `total` is all there is. No memory if its file is bad."""
        if entry.header is None:
            return Need(0, servers=_servers(entry))
        return self._corrected(entry, placement.least(entry.header, entry.config.engine, total))

    def grant(self, entry: Entry, free: Need) -> Claim:
        """How the model is loaded into what is free, of which it leaves a part."""
        key = self._key(entry)
        if entry.header is None:
            return Claim(entry.config, Need(0, servers=_servers(entry)), 0, 0, key)
        engine = entry.config.engine
        more = self._more(key)
        placed = placement.choose(entry.header, engine, free.less(Need(more)))
        need = self._corrected(entry, placed.need)
        spare = min(engine.prefix_cache, max(0, free.ram - need.ram) // 2)
        decided = placement.settle(engine, placed).model_copy(update={"prefix_cache": spare})
        if engine.devices or engine.rpc_servers:
            # These may be other memories than those we know of: llama.cpp decides.
            own = {name: getattr(engine, name) for name in PLACES}
            decided = decided.model_copy(update=own)
        config = entry.config.model_copy(update={"engine": decided})
        return Claim(config, need.plus(Need(spare)), spare, placed.need.ram, key)

    def learn(self, entry: Entry, claim: Claim, ram: int, load_s: float) -> Claim:
        """The model has taken `ram` bytes in its load, and so much is its claim from now on."""
        if entry.header is None:
            return claim
        taken = f"{ram / 2**20:,.0f} MiB, estimated {claim.estimated / 2**20:,.0f}"
        log.info("%s: loaded in %.1f s, takes %s", entry.id, load_s, taken)
        size = entry.header.size_bytes
        more = ram - claim.estimated
        self._footprints.note(claim.key, Footprint(more=more, load_s=load_s, size=size))
        return replace(claim, need=claim.need._replace(ram=ram + claim.spare))

    def load_s(self, entry: Entry) -> float:
        """Seconds that its load will take, by what was measured."""
        size = 0 if entry.header is None else entry.header.size_bytes
        return self._footprints.load_s(self._key(entry), size)

    def _key(self, entry: Entry) -> str:
        return key_of(entry.found.parts[0], entry.config.engine)

    def _more(self, key: str) -> int:
        known = self._footprints.of(key)
        return 0 if known is None else known.more

    def _corrected(self, entry: Entry, need: Need) -> Need:
        ram = max(0, need.ram + self._more(self._key(entry)))
        return Need(ram, need.gpus, _servers(entry))


def _servers(entry: Entry) -> frozenset[str]:
    return frozenset(entry.config.engine.rpc_servers)
