"""Models found on disk: in folders, and in the cache of the Hugging Face hub."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from server.filenames import part_name, part_of

log = logging.getLogger(__name__)

MOST_NAMED = 8
"""Missing parts that are told by their numbers."""


class Found(NamedTuple):
    """One model, of one file or several."""

    stem: str
    """The file's name without `.gguf` and the number of the part."""
    folders: tuple[str, ...]
    """Where it lies, outermost first; of the hub's cache: owner and repository, then folders."""
    repo: tuple[str, ...]
    """Those of `folders` that say what it is: owner and repository, or inside a searched folder."""
    parts: tuple[Path, ...]
    """Its files in their order. Of a split model those that are there."""
    n_parts: int = 1

    @property
    def fault(self) -> str | None:
        """Which parts are missing, if any."""
        there = {part_of(path.stem).number for path in self.parts}
        missing = [number for number in range(1, self.n_parts + 1) if number not in there]
        if self.n_parts == 1 or not missing:
            return None
        numbers = ", ".join(map(str, missing[:MOST_NAMED])) + ", ..." * (len(missing) > MOST_NAMED)
        return f"part{'s' if len(missing) > 1 else ''} {numbers} of {self.n_parts} missing"


def in_folder(folder: Path) -> list[Found]:
    """The GGUF files in `folder` and the folders inside it, by name. Hidden ones are left out."""
    n_outer = len(folder.absolute().parts)
    return _together(((path, path.parent.absolute().parts) for path in _files(folder)), n_outer)


def in_hub(cache: Path) -> list[Found]:
    """The GGUF files in a cache of the hub.

    Of a file that is there in several revisions, the one of `main` counts, else the newest.
    """
    found: list[Found] = []
    for repo in sorted(cache.glob("models--*")):
        places = tuple(repo.name.removeprefix("models--").split("--"))
        files: dict[Path, Path] = {}
        for revision in _revisions(repo):
            for path in _files(revision):
                files.setdefault(path.relative_to(revision), path)
        found += _together(
            ((path, (*places, *inside.parent.parts)) for inside, path in sorted(files.items())), 0
        )
    return found


def hub_cache() -> Path:
    """Where the hub's own library keeps what it fetched, by the same variables."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if place := os.environ.get(name):
            return Path(place).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or str(Path(caches) / "huggingface")
    return Path(home).expanduser() / "hub"


def model_at(path: Path) -> Found:
    """The model whose file, or first part, is named; whether it is there or not."""
    folder, (stem, number, count) = path.parent.absolute(), part_of(path.stem)
    if number != 1 or count == 1:
        return Found(stem if number == 1 else path.stem, folder.parts, (), (path,))
    parts = (path.with_name(part_name(stem, i, count)) for i in range(1, count + 1))
    there = tuple(part for part in parts if part.exists())
    return Found(stem, folder.parts, (), there or (path,), count)


def _revisions(repo: Path) -> list[Path]:
    """The snapshots of a repository, the best first."""
    try:
        main = (repo / "refs" / "main").read_text().strip()
    except OSError:
        main = ""
    snapshots = [path for path in (repo / "snapshots").glob("*") if path.is_dir()]
    return sorted(snapshots, key=lambda path: (path.name != main, -path.stat().st_mtime))


def _files(folder: Path) -> Iterator[Path]:
    """Every GGUF file inside `folder`, through links too, and each folder once."""
    seen: set[str] = set()
    walk = os.walk(folder, followlinks=True, onerror=_tell)
    for place, inside, names in walk:
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        real = os.path.realpath(place)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        for name in sorted(names):
            if name.lower().endswith(".gguf") and not name.startswith("."):
                yield Path(place, name)


def _tell(error: OSError) -> None:
    log.warning("%s is not searched for models: %s", error.filename, error.strerror)


def _together(files: Iterable[tuple[Path, tuple[str, ...]]], n_outer: int) -> list[Found]:
    """Models of files that come with their folders, of which `n_outer` say nothing of the model.

    Parts of one model make one.
    """
    groups: dict[tuple[tuple[str, ...], str, int], list[Path]] = {}
    for path, folders in files:
        stem, _, count = part_of(path.stem)
        groups.setdefault((folders, stem, count), []).append(path)
    return [
        Found(stem, folders, folders[n_outer:], tuple(sorted(paths)), count)
        for (folders, stem, count), paths in groups.items()
    ]
