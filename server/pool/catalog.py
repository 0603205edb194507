"""Catalog: every model that can be asked for, and what names each answers to.

A model is configured, or found on disk. A found one is called as its file; where several files have
one name, as many folders stand before it as tell them apart.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from server.config import Config, ConfigError, ModelConfig
from server.errors import ModelLoadError, ModelNotFound
from server.filenames import quant_in
from server.gguf import Header
from server.pool import scan
from server.pool.cache_folder import cache_folder
from server.pool.endpoints import resolved
from server.pool.header_cache import HeaderCache, Stamp, stamps_of
from server.pool.names import Names
from server.pool.scan import Found

log = logging.getLogger(__name__)

MOST_NAMED = 20
"""Models that a refusal names."""


class Entry(NamedTuple):
    """One model: how it is run, what its header says, or why it cannot be read."""

    id: str
    config: ModelConfig
    found: Found
    header: Header | None
    fault: str | None
    configured: bool
    servers: frozenset[str] = frozenset()
    """RPC servers that it has, each by one spelling."""
    stamps: tuple[Stamp, ...] = ()
    """Of its files, when they were looked at."""

    @property
    def offered(self) -> bool:
        """Whether clients are told of it. What is configured may yet be repaired."""
        return self.configured or self.fault is None

    def same_as(self, other: "Entry") -> bool:
        """Whether it is loaded in the same way from the same files, whatever else is different."""
        ours, theirs = self.config, other.config
        return (
            (ours.path, ours.engine) == (theirs.path, theirs.engine)
            and self.found == other.found
            and self.header == other.header
            and self.stamps == other.stamps
            and self.fault == other.fault
        )

    @property
    def quant(self) -> str:
        """As the file's name says, else its header; empty if neither does."""
        header = "" if self.header is None else self.header.quant
        return quant_in(self.found.stem) or header


class Catalog:
    """The models by their ids, configured ones first. Nothing here changes."""

    def __init__(self, entries: Iterable[Entry]):
        known: dict[str, Entry] = {}
        for entry in entries:
            known.setdefault(entry.id, entry)
        self.entries: Mapping[str, Entry] = known
        self.models: Mapping[str, ModelConfig] = {
            id: entry.config for id, entry in self.entries.items()
        }
        self._aliases = {
            alias: id for id, entry in self.entries.items() for alias in entry.config.aliases
        }
        self._names = Names(
            (entry.id, entry.found, "" if entry.header is None else entry.header.quant)
            for entry in self.entries.values()
        )

    def resolve(self, model: str) -> str:
        """The id of what a request calls `model`: an id, an alias, a file's name with any of its
        folders, or `repo:quant`. Raises ModelNotFound, which names the candidates if several fit.
        """
        if model in self.entries:
            return model
        if model in self._aliases:
            return self._aliases[model]
        match self._names.meant(model):
            case []:
                raise ModelNotFound(
                    f"the model {model!r} does not exist; known: {_listed(list(self.entries))}",
                    param="model",
                )
            case [id]:
                return id
            case several:
                raise ModelNotFound(
                    f"the model {model!r} could be any of {len(several)}: {_listed(several)}",
                    param="model",
                )


def read_catalog(
    config: Config, cache: HeaderCache | None = None, *, default_may_miss: bool = False
) -> Catalog:
    """The models of `config`, of its folders and of the hub's cache, with their headers.

    `cache`: by default the one in the user's folder of caches. Raises ConfigError if the default
    model does not exist, unless it may; then that is logged.
    """
    began = time.monotonic()
    cache = cache or HeaderCache(cache_folder() / "headers.json")
    resolve = lru_cache(None)(resolved)
    entries = [
        _entry(id, model, scan.model_at(model.path), cache, resolve, configured=True)
        for id, model in config.models.items()
    ]
    named = {_real(entry.found) for entry in entries}
    names = {name for entry in entries for name in (entry.id, *entry.config.aliases)}
    found = [each for each in _search(config) if _real(each) not in named]
    for id, each in zip(_ids(found, names), found, strict=True):
        model = ModelConfig(
            path=each.parts[0], engine=config.found.engine, sampling=config.found.sampling
        )
        entry = _entry(id, model, each, cache, resolve, configured=False)
        if entry.header is None or entry.header.kind == "model":
            entries.append(entry)
    cache.save()
    catalog = Catalog(entries)
    if found:
        taken = time.monotonic() - began
        log.info("%d models, %d of them found, in %.1f s", len(entries), len(found), taken)
    try:
        _check_default(config, catalog)
    except ConfigError as error:
        if not default_may_miss:
            raise
        log.warning("%s", error)
    return catalog


def _search(config: Config) -> list[Found]:
    """The models on disk, each file once, those of folders first."""
    places = [each for folder in config.models_dir for each in scan.in_folder(folder)]
    if config.hf_cache == "on":
        places += scan.in_hub(scan.hub_cache())
    return list({_real(each): each for each in reversed(places)}.values())[::-1]


def _real(found: Found) -> Path:
    return found.parts[0].resolve()


def _entry(
    id: str,
    config: ModelConfig,
    found: Found,
    cache: HeaderCache,
    resolve: Callable[[str], str],
    *,
    configured: bool,
) -> Entry:
    header, fault = None, found.fault
    stamps: tuple[Stamp, ...] = ()
    if fault is None:
        try:
            stamps = stamps_of(found.parts)
            header = cache.read(found.parts)
        except ModelLoadError as error:
            fault = error.message.removeprefix(f"{found.parts[0]}: ")
        except OSError as error:
            fault = error.strerror or str(error)
    if header is not None and header.kind == "model" and not header.n_params:
        fault = "it has no weights"
    servers = frozenset(map(resolve, config.engine.rpc_servers))
    return Entry(id, config, found, header, fault, configured, servers, stamps)


def _ids(found: Sequence[Found], taken: set[str]) -> list[str]:
    """An id for each: the file's name, with as many folders before it as make it the only one."""
    places = [(*each.folders, each.stem) for each in found]
    depths = [1] * len(places)
    while True:
        ids = ["/".join(place[-n:]) for place, n in zip(places, depths, strict=True)]
        count = Counter(ids)
        unclear = [
            i
            for i, id in enumerate(ids)
            if (count[id] > 1 or id in taken) and depths[i] < len(places[i])
        ]
        if not unclear:
            return ids
        for i in unclear:
            depths[i] += 1


def _check_default(config: Config, catalog: Catalog) -> None:
    if config.default_model is None:
        return
    try:
        catalog.resolve(config.default_model)
    except ModelNotFound as error:
        raise ConfigError(f"default_model: {error.message}") from error


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MOST_NAMED:,} more" if len(ids) > MOST_NAMED else ""
    return (", ".join(ids[:MOST_NAMED]) or "none") + more
