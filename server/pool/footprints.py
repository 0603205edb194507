"""Footprints: what models really took, or would by a dry run, remembered between runs.

One JSON file keeps them. It can be deleted at any time.
"""

import hashlib
import logging
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from server.engine_config import EngineConfig
from server.pool.cache_folder import read_file, replace_file

log = logging.getLogger(__name__)

VERSION = 2

MOST = 10_000
"""Kept of each kind; the oldest go first."""

DEFAULT_SPEED = 500e6
"""Bytes per second of a load, where none was ever measured."""


K = TypeVar("K")


class Footprint(BaseModel):
    """One model under one setting of its engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    more: int
    """Bytes of RAM beyond those estimated; negative if less."""
    load_s: float
    size: int
    """Bytes of its files."""


class Told(BaseModel):
    """Bytes beyond those estimated that llama.cpp said it would take of each memory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ram: int
    gpus: tuple[int, ...] = ()


class _Content(BaseModel):
    version: int
    taken: dict[str, Footprint]
    told: dict[str, Told]


class Footprints:
    """The footprints kept in the file at `path`, or in none. Damaged content counts as none."""

    def __init__(self, path: Path | None):
        self._path = path
        content = None if path is None else read_file(path, _Content)
        if content is None or content.version != VERSION:
            content = _Content(version=VERSION, taken={}, told={})
        self._taken, self._told = content.taken, content.told

    def of(self, key: str) -> Footprint | None:
        """What was last measured under that key."""
        return self._taken.get(key)

    def told(self, key: str) -> Told | None:
        """What llama.cpp last said under that key."""
        return self._told.get(key)

    def note(self, key: str, known: Footprint | Told) -> None:
        """Remember, now and for later runs. A failure to write is logged, no more."""
        if isinstance(known, Told):
            _put(self._told, key, known)
        else:
            _put(self._taken, key, known)
        if self._path is None:
            return
        content = _Content(version=VERSION, taken=self._taken, told=self._told)
        try:
            replace_file(self._path, content.model_dump_json())
        except OSError as error:
            log.warning("footprints are not kept in %s: %s", self._path, error.strerror)

    def load_s(self, key: str, size: int) -> float:
        """Seconds that the load of `size` bytes will take: as it took, or as others did."""
        known = self._taken.get(key)
        if known is not None:
            return known.load_s
        loads = [each for each in self._taken.values() if each.size and each.load_s]
        if not loads:
            return size / DEFAULT_SPEED
        return size * sum(each.load_s for each in loads) / sum(each.size for each in loads)


def key_of(path: Path, engine: EngineConfig) -> str:
    """Of a file as it is now, under the settings of its engine; changes with any of them."""
    try:
        stat = path.stat()
        stamp = f"{stat.st_size} {stat.st_mtime_ns}"
    except OSError:
        stamp = "missing"
    text = f"{path.absolute()} {stamp} {engine.model_dump_json()}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _put(kept: dict[str, K], key: str, known: K) -> None:
    """The latest are last."""
    kept.pop(key, None)
    kept[key] = known
    while len(kept) > MOST:
        del kept[next(iter(kept))]
