"""Fetching models from the Hugging Face hub, into its cache or a folder.

The library lists the repository, knows the token and keeps the cache; `download` moves the bytes.
All of it blocks: it belongs on a thread, or into a command.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

from huggingface_hub import hf_hub_url
from huggingface_hub.file_download import repo_folder_name

from server.errors import InvalidRequest, PullError
from server.pool import download, offers
from server.pool.download import Place
from server.pool.hub import Hub, listing, told
from server.pool.offers import Choice, Offer, RemoteFile, Room, shown

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants fetched."""

    repo: str
    wanted: str | None = None
    """A file, a pattern or `:QUANT`; None: the best for the machine."""
    local_dir: Path | None = None
    """Instead of the cache."""
    revision: str = MAIN
    """A branch, a tag or a commit."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: bytes of the file, and of all files of the order."""

    file: str
    file_done: int
    file_size: int
    done: int
    size: int


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is here. `path`: its file, or the first of its parts."""

    offer: Offer
    paths: tuple[Path, ...]

    @property
    def path(self) -> Path:
        return self.paths[0]


Report = Callable[[Choice | Progress], None]
"""Is told the choice once, then the progress. What it raises ends the pull, to be continued."""


def order_of(repo: str, wanted: str | None, local_dir: Path | None, revision: str) -> Order:
    """The order, of a repository that may be written as `REPO:QUANT`."""
    name, colon, quant = repo.partition(":")
    if colon and wanted:
        raise InvalidRequest(f"{repo} {wanted}: both name what to fetch", offers.WANTED)
    return Order(name, f":{quant}" if colon else wanted, local_dir, revision)


def pull(hub: Hub, order: Order, room: Callable[[], Room], report: Report) -> list[Pulled]:
    """Fetch what `order` says, or what is best for the machine that `room` measures.

    Raises InvalidRequest and PullError. What was fetched before is kept, and the next
    pull goes on from there.
    """
    if ".." in order.revision or order.revision.startswith("/"):
        raise InvalidRequest(f"{order.revision} is no revision", "revision")
    with told(hub, order.repo):
        commit, files = listing(hub, order.repo, order.revision)
        found = offers.group(files)
        if not found:
            raise PullError(f"{order.repo} has no GGUF file among its {len(files):,} files")
        if order.wanted is None:
            choice = offers.best(found, room())
        else:
            choice = offers.select(found, order.wanted)
        report(choice)
        return _Pull(hub, order, commit, choice, report).run()


class _Pull:
    """The files of one order on their way."""

    def __init__(self, hub: Hub, order: Order, commit: str, choice: Choice, report: Report):
        self._hub = hub
        self._order = order
        self._commit = commit
        self._offers = choice.offers
        self._files = [file for offer in choice.offers for file in offer.files]
        self._report = report
        self._size = sum(file.size for file in self._files)
        self._done = 0
        folder = repo_folder_name(repo_id=order.repo, repo_type="model")
        self._storage = hub.cache_dir / folder
        self._locks = hub.cache_dir / ".locks" / folder

    def run(self) -> list[Pulled]:
        """Fetch what is missing."""
        self._check_disk()
        pulled = [Pulled(o, tuple(map(self._file, o.files))) for o in self._offers]
        if self._order.local_dir is None and self._order.revision != self._commit:
            # What the library does when it fetches by the name of a branch.
            ref = self._storage / "refs" / self._order.revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(self._commit)
        return pulled

    def _file(self, file: RemoteFile) -> Path:
        """Its path, once it is there."""
        place = self._place(file)
        if self._order.local_dir is None:
            path = self._storage.joinpath("snapshots", self._commit, *file.path.split("/"))
            here = path.is_file() or place.target.is_file()
        else:
            path = place.target
            here = download.verified(path, file)
        by_library = file.size > self._hub.http_limit
        if not here and not by_library:
            self._fetch(file)
        if not path.is_file() or (by_library and not here):
            path = self._by_library(file)
        self._done += file.size
        self._tell(file, file.size, 0)
        return path

    def _fetch(self, file: RemoteFile) -> None:
        arrived = 0

        def advance(n_bytes: int) -> None:
            nonlocal arrived
            arrived += n_bytes
            self._tell(file, arrived, arrived)

        url = hf_hub_url(
            self._order.repo, file.path, revision=self._commit, endpoint=self._hub.endpoint
        )
        headers = self._hub.headers()
        download.fetch(url, headers, file, self._place(file), advance, self._hub.pauses)

    def _tell(self, file: RemoteFile, file_done: int, beyond: int) -> None:
        """`beyond`: bytes that are not yet in the sum of what is done."""
        self._report(Progress(file.path, file_done, file.size, self._done + beyond, self._size))

    def _place(self, file: RemoteFile) -> Place:
        """The library's own places: blobs of the cache; beside a folder's files, its `.cache`."""
        if self._order.local_dir is None:
            blobs = self._storage / "blobs"
            lock = self._locks / f"{file.digest}.lock"
            return Place(blobs / file.digest, blobs / f"{file.digest}.incomplete", lock)
        folder = self._order.local_dir.expanduser().resolve()
        aside = folder / ".cache" / "huggingface" / "download"
        return Place(
            folder.joinpath(*file.path.split("/")),
            aside / f"{file.digest}.incomplete",
            aside / f"{file.digest}.lock",
        )

    def _by_library(self, file: RemoteFile) -> Path:
        """Its path, from the library, which gives a blob that is there its name in the snapshot."""
        return Path(
            self._hub.fetcher().hf_hub_download(
                self._order.repo,
                file.path,
                revision=self._commit,
                cache_dir=self._hub.cache_dir,
                local_dir=self._order.local_dir,
            )
        )

    def _check_disk(self) -> None:
        missing = sum(self._missing(file) for file in self._files)
        folder = self._place(self._files[0]).part.parent
        while not folder.exists():
            folder = folder.parent
        free = disk_usage(folder).free
        if missing > free:
            raise PullError(
                f"{shown(missing)} are still to be fetched, and {shown(free)} are free in {folder}"
            )

    def _missing(self, file: RemoteFile) -> int:
        """Bytes that it will take on the disk."""
        place = self._place(file)
        if place.target.is_file() and place.target.stat().st_size == file.size:
            return 0
        here = place.part.stat().st_size if place.part.is_file() else 0
        return max(0, file.size - here)
