"""One file over a real connection that breaks, lies and begins again."""

import os
import stat
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub.errors import HfHubHTTPError

from server.errors import PullError
from server.pool.download import Place, fetch, verified
from server.pool.offers import RemoteFile
from tests.pool.stand_in_hub import StandIn, sha256

DATA = bytes(range(256)) * 4096
FILE = RemoteFile("m.gguf", len(DATA), sha256(DATA))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "here" / "m", tmp_path / "parts" / "m", tmp_path / "locks" / "m")


class Down:
    """A download, the progress of which is added up."""

    def __init__(self, hub: StandIn, place: Place, file: RemoteFile = FILE):
        hub.repos["a/b"] = {"m.gguf": DATA}
        self.hub, self.place, self.file = hub, place, file
        self.advanced: list[int] = []

    def __call__(self, pauses: tuple[float, ...] = (0.0, 0.0)) -> None:
        url = f"{self.hub.cdn}/cdn/m.gguf"
        fetch(url, {}, self.file, self.place, self.advanced.append, pauses)

    @property
    def ranges(self) -> list[str | None]:
        return [request.range for request in self.hub.requests]


def test_a_file_arrives(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place)
    down()
    assert place.target.read_bytes() == DATA
    assert not place.part.exists()
    assert sum(down.advanced) == len(DATA)
    assert stat.S_IMODE(place.target.stat().st_mode) == 0o666 & ~umask()


def test_an_empty_file_arrives(stand_in: StandIn, place: Place) -> None:
    Down(stand_in, place, RemoteFile("m.gguf", 0, sha256(b"")))()
    assert place.target.read_bytes() == b""


def test_a_broken_connection_is_continued(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place)
    stand_in.cuts = [1000, 50_000, 0, 7]
    down()
    assert place.target.read_bytes() == DATA
    assert down.ranges == [None, "bytes=1000-", "bytes=51000-", "bytes=51000-", "bytes=51007-"]
    assert sum(down.advanced) == len(DATA)


def test_what_arrived_is_kept_where_nothing_more_comes(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place)
    stand_in.cuts = [1000, 0, 0, 0]
    with pytest.raises(PullError) as caught:
        down()
    assert "(attempts: 3); 1,000 of 1,048,576 bytes are kept" in caught.value.message
    assert place.part.read_bytes() == DATA[:1000]
    assert not place.target.exists()
    down = Down(stand_in, place)
    down()
    assert down.ranges[-1] == "bytes=1000-"
    assert place.target.read_bytes() == DATA
    assert down.advanced[0] == 1000


def test_bytes_that_come_give_new_patience(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place)
    stand_in.cuts = [0, 0, 10, 0, 0, 10, 0, 0]
    down()
    assert place.target.read_bytes() == DATA


def test_a_server_that_ignores_ranges_sends_all_again(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place)
    stand_in.ranges = False
    stand_in.cuts = [1000]
    down()
    assert place.target.read_bytes() == DATA
    assert down.ranges == [None, "bytes=1000-"]
    assert -1000 in down.advanced
    assert sum(down.advanced) == len(DATA)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(stand_in: StandIn, place: Place, status: int) -> None:
    down = Down(stand_in, place)
    stand_in.statuses = [status, status]
    down()
    assert place.target.read_bytes() == DATA
    stand_in.statuses = [status] * 3
    place.target.unlink()
    with pytest.raises(PullError, match=rf"m\.gguf: status {status} \(attempts: 3\); 0 of"):
        down()


def test_a_refusal_is_final(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place)
    stand_in.statuses = [403]
    with pytest.raises(HfHubHTTPError):
        down()
    assert len(down.ranges) == 1


def test_a_wrong_checksum_is_told_and_nothing_is_kept(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place, RemoteFile("m.gguf", len(DATA), "0" * 64))
    with pytest.raises(PullError, match=f"its checksum is {FILE.digest}, and the hub says 0000"):
        down()
    assert not place.part.exists()
    assert not place.target.exists()


def test_a_damaged_part_is_found_out(stand_in: StandIn, place: Place) -> None:
    place.part.parent.mkdir()
    place.part.write_bytes(b"x" * 1000)
    down = Down(stand_in, place)
    with pytest.raises(PullError, match="checksum"):
        down()
    down()
    assert place.target.read_bytes() == DATA


def test_a_part_that_is_too_long_begins_again(stand_in: StandIn, place: Place) -> None:
    place.part.parent.mkdir()
    place.part.write_bytes(DATA + b"x")
    down = Down(stand_in, place)
    down()
    assert place.target.read_bytes() == DATA
    assert sum(down.advanced) == len(DATA)


def test_more_than_announced_is_refused(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place, RemoteFile("m.gguf", 1000, FILE.digest))
    with pytest.raises(PullError, match=r"m\.gguf: more than the 1,000 bytes it has"):
        down()


def test_who_raises_in_the_progress_leaves_a_part(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place)

    def leave(n_bytes: int) -> None:
        if n_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{stand_in.cdn}/cdn/m.gguf", {}, FILE, place, leave)
    kept = place.part.stat().st_size
    assert 0 < kept < len(DATA)
    down()
    assert down.ranges[-1] == f"bytes={kept}-"
    assert place.target.read_bytes() == DATA


def test_a_file_is_fetched_once_at_a_time(stand_in: StandIn, place: Place) -> None:
    down = Down(stand_in, place)
    place.lock.parent.mkdir()
    with (
        FileLock(place.lock),
        pytest.raises(PullError, match=r"m\.gguf is being fetched already"),
    ):
        down()
    down()
    assert place.target.read_bytes() == DATA


def test_no_server_is_told_with_its_reason(place: Place) -> None:
    with pytest.raises(PullError, match=r"m\.gguf: .*refused.* \(attempts: 1\)"):
        fetch("http://127.0.0.1:1/m", {}, FILE, place, lambda _: None, ())


def test_verified_says_whether_the_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "m"
    assert not verified(path, FILE)
    path.write_bytes(DATA)
    assert verified(path, FILE)
    path.write_bytes(DATA[:-1] + b"x")
    assert not verified(path, FILE)
    path.write_bytes(DATA[:-1])
    assert not verified(path, FILE)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
