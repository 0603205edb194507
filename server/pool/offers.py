"""What a repository of GGUF files offers, and which of it to take: pure functions.

A quant is an `Offer`: one file, or all parts of a model that is split. The best one for a machine
is the largest of Q4_K_M to Q6_K that fits, on the GPUs alone if one does: below, answers get worse;
above, they hardly get better.
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import NamedTuple

from server.errors import InvalidRequest, PullError
from server.filenames import part_of, quant_in
from server.quants import UNQUANTIZED

ASIDE = frozenset({"mmproj", "imatrix", "lora", "adapter"})
"""Words in the names of files that go with a model and are none."""

PREFERRED = ("Q4_K_M", "Q4_K_L", "Q4_K_XL", "Q5_K_S", "Q5_K_M", "Q5_K_L", "Q5_K_XL", "Q6_K")
WANTED = "file"
"""The field of an order that says what to take."""

GiB = 2**30


class RemoteFile(NamedTuple):
    """A file of a repository. `digest`: sha256, or git's own sha1 of a file outside of LFS."""

    path: str
    size: int
    digest: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


class Offer(NamedTuple):
    """One GGUF of a repository, all its parts."""

    path: str
    """Without the part's number and the suffix."""
    files: tuple[RemoteFile, ...]
    n_parts: int
    """That it must have."""

    @property
    def id(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def quant(self) -> str:
        """As `Q4_K_M`; empty where the name does not say."""
        return quant_in(self.path)

    @property
    def is_model(self) -> bool:
        return ASIDE.isdisjoint(re.split(r"[^a-z]+", self.path.lower()))

    @property
    def need(self) -> int:
        """Bytes that it takes to run: the weights, and a margin for context and buffers."""
        return self.size + self.size // 10 + GiB // 2


class Room(NamedTuple):
    """Free bytes of a machine."""

    ram: int
    vram: int = 0


class Choice(NamedTuple):
    """What to fetch, and why that."""

    offers: tuple[Offer, ...]
    reason: str


def group(files: Iterable[RemoteFile]) -> list[Offer]:
    """The GGUFs among `files`, the smallest first."""
    parts: dict[tuple[str, int], list[RemoteFile]] = {}
    for file in files:
        path = PurePosixPath(file.path)
        if path.suffix.lower() == ".gguf":
            part = part_of(str(path.with_suffix("")))
            parts.setdefault((part.stem, part.n_parts), []).append(file)
    offers = [
        Offer(stem, tuple(sorted(found, key=lambda file: file.path)), count)
        for (stem, count), found in parts.items()
    ]
    return sorted(offers, key=lambda offer: (offer.size, offer.path))


def select(offers: Sequence[Offer], wanted: str) -> Choice:
    """What `wanted` means: a file, `:QUANT` or a pattern. Raises InvalidRequest."""
    if any(sign in wanted for sign in "*?["):
        found = [offer for offer in offers if any(_matches(f, wanted) for f in offer.files)]
    elif wanted.startswith(":"):
        found = _only_one(wanted, _of_quant(offers, wanted[1:]))
    else:
        found = _only_one(wanted, _named(offers, wanted) or _of_quant(offers, wanted))
    if not found:
        raise InvalidRequest(f"nothing matches {wanted}; there is {listed(offers)}", WANTED)
    for offer in found:
        if len(offer.files) != offer.n_parts:
            raise PullError(
                f"{offer.path}: the repository has {len(offer.files)} of its {offer.n_parts} parts"
            )
    size = sum(offer.size for offer in found)
    return Choice(tuple(found), f"{listed(found)}, {shown(size)}, as asked for")


def best(offers: Sequence[Offer], room: Room) -> Choice:
    """The best model for a machine with that much memory free. Raises PullError if none fits."""
    models = [o for o in offers if o.is_model and len(o.files) == o.n_parts]
    if not models:
        raise PullError(f"no whole model among {listed(offers)}")
    good = [o for o in models if o.quant.removeprefix("UD-") in PREFERRED]
    # What is not quantized is taken by itself only where there is nothing else.
    small = [o for o in models if o.quant not in UNQUANTIZED]
    every = room.ram + room.vram
    among = "Q4_K_M to Q6_K"
    for tier, of, place, free in (
        (good, among, "of GPU memory", room.vram),
        (good, among, "of memory", every),
        (small, "all quants", "of memory", every),
        (models, "all files", "of memory", every),
    ):
        fitting = [offer for offer in tier if offer.need <= free]
        if fitting:
            # At the same size, the name decides, so that the choice is always the same.
            chosen = max(fitting, key=lambda offer: (offer.size, offer.path))
            return Choice(
                (chosen,),
                f"{chosen.quant or chosen.id}, {shown(chosen.size)}: the largest of {of} that "
                f"fits, with {shown(chosen.need - chosen.size)} for the context, into "
                f"{shown(free)} {place}",
            )
    least = min(models, key=lambda offer: offer.need)
    raise PullError(
        f"the smallest, {least.quant or least.id}, needs {shown(least.need)} with its context, and "
        f"{shown(every)} are free; name one to fetch it all the same: {listed(models)}"
    )


def listed(offers: Iterable[Offer]) -> str:
    """The offers in one line."""
    return ", ".join(f"{offer.path} ({shown(offer.size)})" for offer in offers)


def shown(n_bytes: int) -> str:
    """5,261,334,937 as 4.9 GiB."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:,.1f} {name}"
    return f"{n_bytes} bytes"


def _matches(file: RemoteFile, pattern: str) -> bool:
    lower = pattern.lower()
    return fnmatchcase(file.path.lower(), lower) or fnmatchcase(file.name.lower(), lower)


def _named(offers: Sequence[Offer], name: str) -> list[Offer]:
    """Those of that path, or else of that file name, with its suffix or without."""
    exact = [o for o in offers if name == o.path or any(name == f.path for f in o.files)]
    return exact or [o for o in offers if name == o.id or any(name == f.name for f in o.files)]


def _of_quant(offers: Sequence[Offer], quant: str) -> list[Offer]:
    return [o for o in offers if o.is_model and quant and o.quant == quant.upper()]


def _only_one(wanted: str, found: list[Offer]) -> list[Offer]:
    if len(found) > 1:
        raise InvalidRequest(f"{wanted} is any of {listed(found)}; name the file", WANTED)
    return found
