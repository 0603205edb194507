"""Headers read from the stand-in, and as much of the file as that takes."""

from pathlib import Path, PurePath

import pytest

from server.errors import ModelLoadError, PullError
from server.gguf import read_header
from server.pool import remote_header
from server.pool.hub import Hub, listing, told
from server.pool.remote_header import MOST
from tests import card_of_mixtral as mixtral
from tests.pool.stand_in_hub import StandIn

REPO, FILE = "someone/mix-GGUF", "mix.Q4_K_M.gguf"


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return mixtral.header(tmp_path / FILE).read_bytes()


def read(hub: StandIn, data: bytes, size: int) -> remote_header.Header:
    hub.repos[REPO] = {FILE: data}
    hub.sizes[FILE] = size
    ours = Hub(hub.url)
    commit, (file,) = listing(ours, REPO, "main")
    with told(ours, REPO):
        return remote_header.remote_header(ours, REPO, commit, file)


def test_it_is_what_the_file_says(stand_in: StandIn, tmp_path: Path) -> None:
    mixtral.sparse(tmp_path / FILE, mixtral.size_of("Q4_K_M"))
    with (tmp_path / FILE).open("rb") as file:
        data = file.read(MOST)
    assert read(stand_in, data, mixtral.size_of("Q4_K_M")) == read_header(tmp_path / FILE)
    (request,) = stand_in.sent(FILE)
    assert request.range == f"bytes=0-{MOST - 1}"


@pytest.mark.parametrize("ranges", [True, False])
def test_no_more_comes_than_it_takes(
    stand_in: StandIn, data: bytes, ranges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_so_far: list[int] = []

    def spy(path: PurePath, data: bytes, size: int) -> remote_header.Header | None:
        read_so_far.append(len(data))
        return original(path, data, size)

    original = remote_header.read_beginning
    monkeypatch.setattr(remote_header, "read_beginning", spy)
    monkeypatch.setattr(remote_header, "FIRST", 2**16)
    stand_in.ranges = ranges
    read(stand_in, data + bytes(MOST), len(data) + MOST)
    assert len(read_so_far) > 2  # its vocabulary takes several attempts
    assert read_so_far == sorted(read_so_far)
    assert read_so_far[-2] < len(data) <= read_so_far[-1] < 4 * len(data)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_header_without_end_is_refused(
    stand_in: StandIn, data: bytes, ranges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_header, "MOST", 1000)
    stand_in.ranges = ranges
    with pytest.raises(PullError, match=rf"{FILE}: its header does not end within [\d,]+ bytes"):
        read(stand_in, data, len(data))


def test_what_is_no_gguf_is_told(stand_in: StandIn) -> None:
    with pytest.raises(ModelLoadError, match=rf"{FILE}: not a GGUF file"):
        read(stand_in, b"hello", 5)


def test_a_gated_file_is_told(stand_in: StandIn, data: bytes) -> None:
    stand_in.gated.add(REPO)
    with pytest.raises(PullError, match="is gated"):
        read(stand_in, data, len(data))
