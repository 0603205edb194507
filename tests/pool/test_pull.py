"""Pulling from a hub on this machine, into a cache that the library can read, and into folders."""

from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, try_to_load_from_cache

from server.errors import InvalidRequest, PullError
from server.pool.hub import Hub
from server.pool.offers import Choice, GiB, Room
from server.pool.pull import Order, Progress, Pulled, order_of, pull
from tests.pool.stand_in_hub import COMMIT, TOKEN, StandIn, sha256

REPO = "someone/mix-GGUF"
SMALL, LARGE = b"GGUF" * 1000, b"gguf" * 3000
SMALL_FILE = "mix.Q4_K_M.gguf"
PARTS = ("Q8_0/mix-00001-of-00002.gguf", "Q8_0/mix-00002-of-00002.gguf")


class Puller:
    """A user: a hub, a cache, and what was reported."""

    def __init__(self, stand_in: StandIn, tmp_path: Path):
        self.stand_in = stand_in
        stand_in.repos[REPO] = {
            "README.md": b"read me",
            SMALL_FILE: SMALL,
            "mix.Q6_K.gguf": LARGE,
            PARTS[0]: b"one" * 500,
            PARTS[1]: b"two" * 700,
            "mmproj-mix-f16.gguf": b"eyes",
        }
        stand_in.in_git.add("README.md")
        self.hub = Hub(stand_in.url, None, tmp_path / "hub", (0.0,))
        self.reports: list[Choice | Progress] = []

    def __call__(self, order: Order, hub: Hub | None = None, room: int = GiB) -> list[Pulled]:
        self.reports.clear()
        return pull(hub or self.hub, order, lambda: Room(room), self.reports.append)

    @property
    def last(self) -> Progress:
        (*_, last) = self.reports
        assert isinstance(last, Progress)
        return last


@pytest.fixture
def puller(stand_in: StandIn, tmp_path: Path) -> Puller:
    return Puller(stand_in, tmp_path)


def test_a_file_comes_into_the_cache_as_the_library_keeps_it(puller: Puller) -> None:
    (pulled,) = puller(Order(REPO, SMALL_FILE))
    assert pulled.path.read_bytes() == SMALL
    assert pulled.path.parts[-3:] == ("snapshots", COMMIT, SMALL_FILE)
    assert pulled.path.resolve().name == sha256(SMALL)
    cache = puller.hub.cache_dir
    assert try_to_load_from_cache(REPO, SMALL_FILE, cache) == str(pulled.path)
    info = scan_cache_dir(cache)
    assert not info.warnings
    (repo,) = info.repos
    (revision,) = repo.revisions
    assert (revision.commit_hash, revision.refs) == (COMMIT, {"main"})
    assert repo.size_on_disk == len(SMALL)


def test_what_is_in_the_cache_is_not_fetched_again(puller: Puller) -> None:
    first = puller(Order(REPO, SMALL_FILE))
    assert puller(Order(REPO, SMALL_FILE)) == first
    assert len(puller.stand_in.sent(SMALL_FILE)) == 1
    assert (puller.last.done, puller.last.size) == (len(SMALL), len(SMALL))


def test_a_blob_without_its_name_is_only_named(puller: Puller) -> None:
    (pulled,) = puller(Order(REPO, SMALL_FILE))
    pulled.path.unlink()
    assert puller(Order(REPO, SMALL_FILE)) == [pulled]
    assert len(puller.stand_in.sent(SMALL_FILE)) == 1


def test_a_split_model_is_pulled_whole(puller: Puller) -> None:
    (pulled,) = puller(Order(REPO, ":q8_0"))
    assert [path.read_bytes() for path in pulled.paths] == [b"one" * 500, b"two" * 700]
    assert pulled.path.name == "mix-00001-of-00002.gguf"
    assert pulled.paths[1].parent == pulled.path.parent
    assert pulled.offer.id == "mix"
    done = [report.done for report in puller.reports if isinstance(report, Progress)]
    assert done == sorted(done)
    assert puller.last == Progress(PARTS[1], 2100, 2100, 3600, 3600)


def test_a_pattern_pulls_all_that_it_matches(puller: Puller) -> None:
    pulled = puller(Order(REPO, "mix.q*"))
    assert [p.offer.id for p in pulled] == ["mix.Q4_K_M", "mix.Q6_K"]
    assert [p.path.read_bytes() for p in pulled] == [SMALL, LARGE]


def test_the_best_for_the_machine_is_pulled(puller: Puller) -> None:
    (pulled,) = puller(Order(REPO))
    assert pulled.offer.quant == "Q6_K"
    choice = puller.reports[0]
    assert isinstance(choice, Choice)
    assert choice.reason.startswith("Q6_K, 11.7 KiB: the largest of Q4_K_M to Q6_K that fits")


def test_the_machine_is_not_measured_for_what_is_named(puller: Puller) -> None:
    def room() -> Room:
        raise AssertionError

    pull(puller.hub, Order(REPO, SMALL_FILE), room, puller.reports.append)


def test_into_a_folder(puller: Puller, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (pulled,) = puller(Order(REPO, ":Q8_0", folder))
    assert pulled.paths == tuple(folder / part for part in PARTS)
    assert pulled.path.read_bytes() == b"one" * 500
    puller(Order(REPO, ":Q8_0", folder))
    assert len(puller.stand_in.sent(PARTS[0])) == 1
    assert not puller.hub.cache_dir.exists()


def test_an_outdated_file_of_a_folder_is_replaced_once_the_new_is_whole(
    puller: Puller, tmp_path: Path
) -> None:
    old = tmp_path / SMALL_FILE
    old.write_bytes(b"old")
    puller.stand_in.cuts = [100, 0, 0]
    with pytest.raises(PullError, match="100 of 4,000 bytes are kept"):
        puller(Order(REPO, SMALL_FILE, tmp_path))
    assert old.read_bytes() == b"old"
    puller(Order(REPO, SMALL_FILE, tmp_path))
    assert old.read_bytes() == SMALL
    assert puller.stand_in.sent(SMALL_FILE)[-1].range == "bytes=100-"


def test_a_pull_into_the_cache_goes_on_where_it_broke_off(puller: Puller) -> None:
    puller.stand_in.cuts = [100, 0, 0]
    with pytest.raises(PullError, match="100 of 4,000"):
        puller(Order(REPO, SMALL_FILE))
    (pulled,) = puller(Order(REPO, SMALL_FILE))
    assert pulled.path.read_bytes() == SMALL
    assert puller.stand_in.sent(SMALL_FILE)[-1].range == "bytes=100-"


def test_a_file_outside_of_lfs_has_its_checksum_too(puller: Puller) -> None:
    puller.stand_in.in_git.add(SMALL_FILE)
    (pulled,) = puller(Order(REPO, SMALL_FILE))
    assert pulled.path.read_bytes() == SMALL
    assert len(pulled.path.resolve().name) == 40


def test_a_wrong_checksum_leaves_nothing(puller: Puller) -> None:
    puller.stand_in.digests[SMALL_FILE] = "0" * 64
    with pytest.raises(PullError, match=f"checksum is {sha256(SMALL)}"):
        puller(Order(REPO, SMALL_FILE))
    assert not [path for path in puller.hub.cache_dir.rglob("blobs/*") if path.is_file()]


@pytest.mark.parametrize("into_folder", [False, True])
def test_what_is_too_large_for_http_comes_through_the_library(
    puller: Puller, tmp_path: Path, into_folder: bool
) -> None:
    hub = Hub(puller.stand_in.url, None, tmp_path / "hub", (0.0,), http_limit=len(SMALL) - 1)
    order = Order(REPO, SMALL_FILE, tmp_path / "models" if into_folder else None)
    (pulled,) = puller(order, hub)
    assert pulled.path.read_bytes() == SMALL
    assert puller(order, hub) == [pulled]
    assert len(puller.stand_in.sent(SMALL_FILE)) == 1


def test_a_token_opens_gated_and_private_repositories(puller: Puller, tmp_path: Path) -> None:
    puller.stand_in.gated.add(REPO)
    puller.stand_in.private.add(REPO)
    hub = Hub(puller.stand_in.url, TOKEN, tmp_path / "hub")
    (pulled,) = puller(Order(REPO, SMALL_FILE), hub)
    assert pulled.path.read_bytes() == SMALL
    (sent,) = puller.stand_in.sent(SMALL_FILE)
    assert sent.authorization is None, "the CDN must not see the token"


def test_the_token_of_the_environment_is_used(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    puller.stand_in.gated.add(REPO)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (pulled,) = puller(Order(REPO, SMALL_FILE))
    assert pulled.path.read_bytes() == SMALL


def test_too_small_a_disk_is_told_in_numbers_before_anything_is_fetched(puller: Puller) -> None:
    puller.stand_in.sizes[SMALL_FILE] = 2**60
    with pytest.raises(PullError, match=r"1,073,741,824.0 GiB are still to be .* free"):
        puller(Order(REPO, SMALL_FILE))
    assert not puller.stand_in.sent(SMALL_FILE)


def test_a_repository_without_gguf_is_told(puller: Puller) -> None:
    puller.stand_in.repos["a/plain"] = {"model.safetensors": b"x", "config.json": b"{}"}
    with pytest.raises(PullError, match="a/plain has no GGUF file among its 2 files"):
        puller(Order("a/plain"))


def test_a_revision_is_a_branch_or_a_commit(puller: Puller) -> None:
    (pulled,) = puller(Order(REPO, SMALL_FILE, revision=COMMIT))
    assert pulled.path.read_bytes() == SMALL
    assert not list(puller.hub.cache_dir.rglob("refs"))
    for revision in ("../up", "/etc"):
        with pytest.raises(InvalidRequest, match="is no revision"):
            puller(Order(REPO, SMALL_FILE, revision=revision))


def test_a_quant_may_follow_the_repository() -> None:
    assert order_of("a/b:Q4_K_M", None, None, "main") == Order("a/b", ":Q4_K_M")
    assert order_of("a/b", "x.gguf", None, "main") == Order("a/b", "x.gguf")
    with pytest.raises(InvalidRequest, match="both name what to fetch"):
        order_of("a/b:Q4_K_M", "x.gguf", None, "main")
