"""The quants of one model: in a folder, in the hub's cache, or on the hub."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from server.errors import CorralError, InvalidRequest, ModelLoadError, PullError
from server.filenames import family_of, quant_in
from server.gguf import Header, read_header
from server.pool import scan
from server.pool.offers import Offer, group
from server.pool.scan import Found

if TYPE_CHECKING:  # the library takes a while to import
    from server.pool.hub import Hub

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Member:
    """One quant, all its parts. `header` is None where it cannot be read."""

    name: str
    quant: str
    size_bytes: int
    n_parts: int
    header: Header | None


@dataclass(frozen=True, slots=True)
class Family:
    """The smallest first; `origin` says where they are, `faults` what is missing and why."""

    members: tuple[Member, ...]
    origin: str
    faults: tuple[str, ...]


def family_at(place: str) -> Family:
    """The models in a folder or in a repository, which is listed by the hub if the cache has none.

    Raises InvalidRequest and PullError.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return on_disk(scan.in_folder(path), f"in {path}")
    if path.exists():
        raise InvalidRequest(f"{place} is a file; name its folder")
    cache = scan.hub_cache()
    cached = [found for found in scan.in_hub(cache) if "/".join(found.folders[:2]) == place]
    if cached:
        return on_disk(cached, f"of {place} in the hub's cache, which has what was fetched")
    from server.pool.hub import Hub

    return on_hub(Hub(), place)


def on_disk(models: Iterable[Found], origin: str) -> Family:
    """Those that are whole. Raises PullError if there is none."""
    members: list[Member] = []
    faults: list[str] = []
    for found in models:
        if found.fault:
            faults.append(f"{found.stem}: {found.fault}")
            continue
        try:
            header = read_header(found.parts[0])
        except ModelLoadError as error:
            faults.append(error.message)
            header = None
        if header is None or header.kind == "model":
            quant = quant_in(found.stem) or (header.quant if header else "")
            size = sum(part.stat().st_size for part in found.parts)
            members.append(Member(found.stem, quant, size, found.n_parts, header))
    return _family(members, origin, faults)


def on_hub(hub: "Hub", repo: str) -> Family:
    """As the hub lists them. Quants of one model have one header, but for the size: the smallest's.

    Raises InvalidRequest and PullError.
    """
    from server.pool.hub import listing, told

    with told(hub, repo):
        commit, files = listing(hub, repo, MAIN)
    headers: dict[str, Header | None] = {}
    members: list[Member] = []
    faults: list[str] = []
    for offer in group(files):
        if not offer.is_model:
            continue
        if len(offer.files) != offer.n_parts:
            faults.append(f"{offer.path}: {len(offer.files)} of its {offer.n_parts} parts")
            continue
        family = family_of(offer.id)
        if family not in headers:
            try:
                headers[family] = _header_of(hub, repo, commit, offer)
            except CorralError as error:
                faults.append(f"no estimate: {error.message}")
                headers[family] = None
        header = headers[family]
        if header is not None:
            # Where the other bytes lie is not known; all are in RAM here.
            more = offer.size - header.weights
            header = replace(header, size_bytes=offer.size, input_bytes=header.input_bytes + more)
        members.append(Member(offer.id, offer.quant, offer.size, offer.n_parts, header))
    return _family(members, f"of {repo} at {hub.url}", faults)


def _header_of(hub: "Hub", repo: str, commit: str, offer: Offer) -> Header:
    from server.pool.hub import told
    from server.pool.remote_header import remote_header

    with told(hub, repo):
        return remote_header(hub, repo, commit, offer.files[0])


def _family(members: Iterable[Member], origin: str, faults: Iterable[str]) -> Family:
    ordered = tuple(sorted(members, key=lambda member: (member.size_bytes, member.name)))
    reasons = tuple(faults)
    if not ordered:
        raise PullError("; ".join([f"there are no models {origin}", *reasons]))
    return Family(ordered, origin, reasons)
