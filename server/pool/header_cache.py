"""HeaderCache: headers that were read before, by file, size and time of the last change.

One JSON file keeps them between runs. It can be deleted at any time.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from server.gguf import Header, read_header
from server.pool.cache_folder import read_file, replace_file

log = logging.getLogger(__name__)

VERSION = 3
"""Of what is kept. To be raised when `read_header` says something else of the same file."""

Stamp = tuple[int, int]
"""A file's size in bytes, and when it was last changed, in nanoseconds."""


def stamps_of(parts: Sequence[Path]) -> tuple[Stamp, ...]:
    """Of the files as they are now. Raises OSError."""
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, parts))


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid")

    stamps: list[Stamp]
    """Of each part of the model."""
    header: Header


class _Content(BaseModel):
    version: int
    files: dict[str, _Kept]


class HeaderCache:
    """The headers kept in the file at `path`, or in none. Damaged content counts as none."""

    def __init__(self, path: Path | None):
        self._path = path
        self._kept = {} if path is None else _load(path)
        self._changed = False

    def read(self, parts: Sequence[Path]) -> Header:
        """The header of the model made of `parts`. Raises ModelLoadError or OSError."""
        key = str(parts[0].absolute())
        stamps = list(stamps_of(parts))
        kept = self._kept.get(key)
        if kept is None or kept.stamps != stamps:
            kept = _Kept(stamps=stamps, header=read_header(parts[0]))
            self._kept[key] = kept
            self._changed = True
        return kept.header

    def save(self) -> None:
        """Write what has changed, without files that are gone. A failure is logged, no more."""
        if self._path is None or not self._changed:
            return
        self._kept = {key: kept for key, kept in self._kept.items() if Path(key).exists()}
        content = _Content(version=VERSION, files=self._kept).model_dump_json()
        try:
            replace_file(self._path, content)
        except OSError as error:
            log.warning("headers are not kept in %s: %s", self._path, error.strerror)
        self._changed = False


def _load(path: Path) -> dict[str, _Kept]:
    content = read_file(path, _Content)
    return content.files if content is not None and content.version == VERSION else {}
