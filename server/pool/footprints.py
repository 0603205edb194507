"""Footprints: what models really took when they were loaded, remembered between runs.

One JSON file keeps them. It can be deleted at any time.
"""

import hashlib
import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from server.engine_config import EngineConfig
from server.pool.cache_folder import read_file, replace_file

log = logging.getLogger(__name__)

VERSION = 1
MOST = 10_000
"""Footprints kept; the oldest go first."""

DEFAULT_SPEED = 500e6
"""Bytes per second of a load, where none was ever measured."""


class Footprint(BaseModel):
    """One model under one setting of its engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    more: int
    """Bytes of RAM beyond those estimated; negative if less."""
    load_s: float
    size: int
    """Bytes of its files."""


class _Content(BaseModel):
    version: int
    taken: dict[str, Footprint]


class Footprints:
    """The footprints kept in the file at `path`, or in none. Damaged content counts as none."""

    def __init__(self, path: Path | None):
        self._path = path
        self._taken = {} if path is None else _load(path)

    def of(self, key: str) -> Footprint | None:
        """What was last measured under that key."""
        return self._taken.get(key)

    def note(self, key: str, footprint: Footprint) -> None:
        """Remember, now and for later runs. A failure to write is logged, no more."""
        self._taken.pop(key, None)
        self._taken[key] = footprint
        while len(self._taken) > MOST:
            del self._taken[next(iter(self._taken))]
        if self._path is None:
            return
        try:
            replace_file(self._path, _Content(version=VERSION, taken=self._taken).model_dump_json())
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


def _load(path: Path) -> dict[str, Footprint]:
    content = read_file(path, _Content)
    return content.taken if content is not None and content.version == VERSION else {}
