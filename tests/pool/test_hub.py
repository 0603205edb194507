"""What the hub's refusals become."""

from pathlib import Path

import pytest

from server.errors import InvalidRequest, PullError
from server.pool.hub import Hub, told
from server.pool.pull import Order
from tests.pool.stand_in_hub import TOKEN, StandIn
from tests.pool.test_pull import REPO, SMALL_FILE, Puller


@pytest.fixture
def puller(stand_in: StandIn, tmp_path: Path) -> Puller:
    return Puller(stand_in, tmp_path)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_an_unknown_repository(puller: Puller, token: str | None) -> None:
    hub = Hub(puller.stand_in.url, token)
    with pytest.raises(InvalidRequest, match=r"there is no model a/none at http.*, or HF_TOKEN"):
        puller(Order("a/none"), hub)


def test_a_private_repository_looks_unknown(puller: Puller) -> None:
    puller.stand_in.private.add(REPO)
    with pytest.raises(InvalidRequest, match=f"there is no model {REPO}"):
        puller(Order(REPO))


def test_a_gated_repository(puller: Puller) -> None:
    puller.stand_in.gated.add(REPO)
    with pytest.raises(PullError) as caught:
        puller(Order(REPO, SMALL_FILE))
    url = puller.stand_in.url
    expected = f"{REPO} is gated: ask for access and set HF_TOKEN at {url}/{REPO}"
    assert caught.value.message == expected


def test_a_bad_token(puller: Puller) -> None:
    with pytest.raises(PullError, match=rf"answers 401 about {REPO}: the token \(HF_TOKEN\)"):
        puller(Order(REPO), Hub(puller.stand_in.url, "hf_bad"))


def test_an_unknown_revision(puller: Puller) -> None:
    with pytest.raises(InvalidRequest, match=f"{REPO} has no such revision"):
        puller(Order(REPO, revision="v9"))


@pytest.mark.parametrize("repo", ["a/b/c", "a b", "..", ""])
def test_what_is_no_repository(puller: Puller, repo: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is no repository|there is no model"):
        puller(Order(repo))


def test_no_hub_there(puller: Puller) -> None:
    with pytest.raises(PullError, match=r"cannot reach http://127\.0\.0\.1:1: .*refused"):
        puller(Order(REPO), Hub("http://127.0.0.1:1"))


def test_a_disk_that_refuses(puller: Puller, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PullError, match=f"{REPO}: .*Not a directory|File exists"):
        puller(Order(REPO, SMALL_FILE, tmp_path / "file" / "below"))


@pytest.mark.parametrize("path", ["../up.gguf", "a/../../up.gguf", "/etc/up.gguf", "a\\up.gguf"])
def test_a_hub_cannot_name_files_outside_of_the_folder(puller: Puller, path: str) -> None:
    puller.stand_in.names[SMALL_FILE] = path
    with pytest.raises(PullError, match="lists a file by a path that is none"):
        puller(Order(REPO))


@pytest.mark.parametrize("digest", ["", "../../up", "A" * 64])
def test_a_hub_must_give_checksums(puller: Puller, digest: str) -> None:
    puller.stand_in.digests[SMALL_FILE] = digest
    with pytest.raises(PullError, match=f"gives no checksum of {SMALL_FILE}"):
        puller(Order(REPO))


def test_a_hub_must_give_the_commit(puller: Puller) -> None:
    puller.stand_in.no_commit = True
    with pytest.raises(PullError, match="does not say the commit"):
        puller(Order(REPO))


def test_our_own_errors_pass() -> None:
    with pytest.raises(PullError, match=r"^as it is$"), told(Hub(), REPO):
        raise PullError("as it is")
