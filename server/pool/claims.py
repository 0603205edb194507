"""Claims: what a model asks for of the memory, and how it is loaded into what it is given."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from server import placement
from server.config import ModelConfig
from server.need import Need
from server.pool.catalog import Entry
from server.pool.devices import Devices
from server.pool.footprints import Footprint, Footprints, Told, key_of

PLACES = ("n_gpu_layers", "n_cpu_moe", "tensor_split", "devices")
"""Settings that say what lies where."""

log = logging.getLogger(__name__)

LENT_S = 60.0
"""Seconds for which it counts what RPC servers have said that they have free."""

DOUBT = (0.85, 1.15)
"""An estimate may be wrong by these factors."""


_Named = tuple[tuple[str, ...], tuple[str, ...]]
"""RPC servers and devices, as settings have them."""


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
    lent: Mapping[str, int] = field(default_factory=dict[str, int])
    """Bytes beside `need` that lie with each of its RPC servers."""


class Claims:
    """Estimates, corrected by what the same model took when it was last loaded, or else by what
    llama.cpp said of it.
    """

    def __init__(self, footprints: Footprints):
        self._footprints = footprints
        self._devices: dict[_Named, tuple[Devices, float]] = {}
        """By how models name their own, and when these were asked."""

    def least(self, entry: Entry, total: Need) -> Need:
        """What the model must have, where `total` is all there is. No memory if its file is bad."""
        if entry.header is None:
            return Need(0, servers=entry.servers)
        devices = self.devices(entry)
        if devices is None and entry.config.engine.names_devices:
            # These are to be asked, and RPC servers have to be free for that.
            return Need(0, servers=entry.servers)
        more = self._more(self._key(entry))
        room = total if devices is None else devices.room(total)
        need = placement.least(entry.header, entry.config.engine, room.less(more)).need
        if devices is not None:
            need = devices.ours(need, len(total.gpus))
        return _corrected(entry, need, more)

    def devices(self, entry: Entry) -> Devices | None:
        """What the model computes on, as it was last found; None: all GPUs, or not yet known."""
        if entry.config.engine.devices == ("none",):
            return Devices(())
        known = self._devices.get(_named(entry))
        return None if known is None else known[0]

    def outdated(self, entry: Entry) -> bool:
        """Whether its devices are to be asked before it is loaded."""
        engine = entry.config.engine
        if not engine.names_devices or engine.devices == ("none",):
            return False
        _, asked = self._devices.get(_named(entry), (None, -math.inf))
        return time.monotonic() - asked > LENT_S

    def meet(self, entry: Entry, devices: Devices) -> None:
        """What was found where it is to compute."""
        self._devices[_named(entry)] = devices, time.monotonic()

    def range(self, entry: Entry, total: Need) -> tuple[Need, Need] | None:
        """Between what it may turn out to need; None where llama.cpp could say no more of it."""
        key, header, engine = self._key(entry), entry.header, entry.config.engine
        known = self._footprints.of(key) or self._footprints.told(key)
        if header is None or known or engine.names_devices:
            return None
        # Where layers go as far as they fit, they fit into a larger or a smaller room.
        low, high = (
            placement.least(header, engine, total.times(1 / factor)).need.times(factor)
            for factor in DOUBT
        )
        return low, high

    def hear(self, entry: Entry, more: Need) -> None:
        """What llama.cpp wants beyond the estimate, which counts until the model was loaded."""
        self._footprints.note(self._key(entry), Told(ram=more.ram, gpus=more.gpus))

    def grant(self, entry: Entry, free: Need) -> Claim:
        """How the model is loaded into what is free, of which it leaves a part."""
        key = self._key(entry)
        if entry.header is None:
            return Claim(entry.config, Need(0, servers=entry.servers), 0, 0, key)
        engine = entry.config.engine
        more = self._more(key)
        devices = self.devices(entry)
        room = free if devices is None else devices.room(free)
        placed = placement.choose(entry.header, engine, room.less(more))
        here = placed.need if devices is None else devices.ours(placed.need, len(free.gpus))
        need = _corrected(entry, here, more)
        spare = min(engine.prefix_cache, max(0, free.ram - need.ram) // 2)
        decided = placement.settle(engine, placed).model_copy(update={"prefix_cache": spare})
        if engine.names_devices:
            # These may be other memories than those we know of: llama.cpp decides.
            own = {name: getattr(engine, name) for name in PLACES}
            decided = decided.model_copy(update=own)
        config = entry.config.model_copy(update={"engine": decided})
        lent = {} if devices is None else devices.lent(placed.need)
        return Claim(config, need.plus(Need(spare)), spare, placed.need.ram, key, lent)

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

    def _more(self, key: str) -> Need:
        """What is to be added to an estimate."""
        measured, told = self._footprints.of(key), self._footprints.told(key)
        gpus = () if told is None else told.gpus
        if measured is not None:
            return Need(measured.more, gpus)
        return Need(0 if told is None else told.ram, gpus)


def _named(entry: Entry) -> _Named:
    engine = entry.config.engine
    return engine.rpc_servers, engine.devices


def _corrected(entry: Entry, need: Need, more: Need) -> Need:
    return need.plus(more).positive()._replace(servers=entry.servers)
