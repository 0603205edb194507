"""One file from the hub: goes on where an earlier attempt broke off, and is checked at the end.

huggingface_hub fetches to a name that is new each time and deletes it on failure, and checks the
length alone. Here what has arrived stays as `DIGEST.incomplete`.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import httpx2
from filelock import FileLock, Timeout
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status

from server.errors import PullError
from server.pool.offers import RemoteFile

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt, while none brings a byte."""

TRANSIENT = (408, 429, 500, 502, 503, 504)

SHA256_DIGITS = 64

Advance = Callable[[int], None]
"""Takes the bytes that have just come into place: none before each attempt, fewer than none where
they had to be dropped."""


class Place(NamedTuple):
    """Where a file goes, where the part of it is that has arrived, and what keeps others off it."""

    target: Path
    part: Path
    lock: Path


def fetch(
    url: str,
    headers: Mapping[str, str],
    file: RemoteFile,
    place: Place,
    advance: Advance,
    pauses: Sequence[float] = PAUSES,
) -> None:
    """Bring `file` to its place. What `advance` raises ends it, and the next call goes on there.

    Raises PullError if it cannot be had or is not what the hub says it is, and HfHubHTTPError where
    the hub refuses it.
    """
    for path in place:
        path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(place.lock, file):
        with place.part.open("a+b") as out:
            arriving = _Arriving(file, out, advance)
            _fill(url, headers, arriving, pauses)
        if (digest := arriving.digest()) != file.digest:
            place.part.unlink()
            raise PullError(
                f"{file.path}: its checksum is {digest}, and the hub says {file.digest}; what was "
                "fetched is deleted"
            )
        place.part.replace(place.target)


def verified(path: Path, file: RemoteFile) -> bool:
    """Whether `file` is at `path` already, by its size and checksum."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as existing:
        return _Arriving(file, existing, lambda _: None).digest() == file.digest


class _Arriving:
    """A file that grows at its end, and the checksum of what is there."""

    def __init__(self, file: RemoteFile, out: BinaryIO, advance: Advance):
        self.file = file
        self._out = out
        self._advance = advance
        self._hash = _hash_for(file)
        self.n_bytes = 0
        out.seek(0)
        while block := out.read(2**20):
            self._count(block)
        if self.n_bytes > file.size:
            self.drop()

    def begin(self) -> None:
        """An attempt begins."""
        self._advance(0)

    def add(self, block: bytes) -> None:
        if self.n_bytes + len(block) > self.file.size:
            raise PullError(f"{self.file.path}: more than the {self.file.size:,} bytes it has")
        self._out.write(block)
        self._count(block)

    def drop(self) -> None:
        """Begin again."""
        self._out.truncate(0)
        self._hash = _hash_for(self.file)
        self._advance(-self.n_bytes)
        self.n_bytes = 0

    def digest(self) -> str:
        return self._hash.hexdigest()

    def _count(self, block: bytes) -> None:
        self._hash.update(block)
        self.n_bytes += len(block)
        self._advance(len(block))


class Hash(Protocol):
    """hashlib's, which have no public name."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def _hash_for(file: RemoteFile) -> Hash:
    if len(file.digest) == SHA256_DIGITS:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)


def _fill(
    url: str, headers: Mapping[str, str], arriving: _Arriving, pauses: Sequence[float]
) -> None:
    """Ask again until all is there, or until one attempt more than `pauses` brought nothing."""
    waits = iter(pauses)
    while (before := arriving.n_bytes) < arriving.file.size:
        reason = "the answer was cut off"
        arriving.begin()
        try:
            _receive(url, headers, arriving)
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
        except HfHubHTTPError as error:
            if error.response.status_code not in TRANSIENT:
                raise
            reason = f"status {error.response.status_code}"
        if arriving.n_bytes > before:
            waits = iter(pauses)
        elif (wait := next(waits, None)) is None:
            raise PullError(
                f"{arriving.file.path}: {reason} (attempts: {len(pauses) + 1}); "
                f"{arriving.n_bytes:,} of {arriving.file.size:,} bytes are kept for the next one"
            )
        else:
            time.sleep(wait)


def _receive(url: str, headers: Mapping[str, str], arriving: _Arriving) -> None:
    """One request for what is missing. A redirect to another host loses the token."""
    asking = {**headers, "Accept-Encoding": "identity"}
    if arriving.n_bytes:
        asking["Range"] = f"bytes={arriving.n_bytes}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=asking, timeout=timeout) as response:
        hf_raise_for_status(response)
        start = f"bytes {arriving.n_bytes}-"
        if arriving.n_bytes and not response.headers.get("Content-Range", "").startswith(start):
            arriving.drop()  # it sends the whole
        for block in response.iter_bytes():
            arriving.add(block)


@contextmanager
def _alone(path: Path, file: RemoteFile) -> Generator[None]:
    """Keep others off the part. The lock stays behind, empty, as all of the hub's locks."""
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise PullError(f"{file.path} is being fetched already") from None
    try:
        yield
    finally:
        lock.release()
