"""The quants of a model, wherever they are."""

from pathlib import Path

import gguf
import pytest

from server.errors import InvalidRequest, PullError
from server.pool import family
from server.pool.family import Family, family_at, on_hub
from server.pool.hub import Hub
from tests import card_of_mixtral as mixtral
from tests.gguf_files import write_gguf
from tests.pool.stand_in_hub import StandIn

REPO = "someone/mix-GGUF"


def names(found: Family) -> list[tuple[str, str, int]]:
    return [(member.name, member.quant, member.n_parts) for member in found.members]


def test_a_folder_lists_what_it_has(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.Q8_0.gguf", n_tensors=9)
    write_gguf(tmp_path / "deep" / "plain.gguf", gguf.LlamaFileType.MOSTLY_Q6_K)
    write_gguf(tmp_path / "m.Q4_0.gguf", n_parts=20)
    gap = write_gguf(tmp_path / "m.Q2_K.gguf", n_parts=3)
    gap.with_name("m.Q2_K-00002-of-00003.gguf").unlink()
    write_gguf(tmp_path / "mmproj-m.gguf", architecture="clip")
    (tmp_path / "text.Q5_0.gguf").write_text("hello")
    found = family_at(str(tmp_path))
    assert names(found) == [
        ("text.Q5_0", "Q5_0", 1),
        ("plain", "Q6_K", 1),
        ("m.Q8_0", "Q8_0", 1),
        ("m.Q4_0", "Q4_0", 20),
    ]
    parts = tmp_path.glob("m.Q4_0-*")
    assert found.members[-1].size_bytes == sum(part.stat().st_size for part in parts)
    assert [member.header is None for member in found.members] == [True, False, False, False]
    assert found.origin == f"in {tmp_path}"
    gap, text = found.faults
    assert gap == "m.Q2_K: part 2 of 3 missing"
    assert "text.Q5_0.gguf: not a GGUF file" in text


def test_the_cache_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for repo in ("someone--mix-GGUF", "someone--other"):
        write_gguf(tmp_path / f"models--{repo}" / "snapshots" / "c" / f"{repo[-3:]}.Q8_0.gguf")
    found = family_at(REPO)
    assert names(found) == [("GUF.Q8_0", "Q8_0", 1)]
    assert found.origin == f"of {REPO} in the hub's cache, which has what was fetched"


def test_what_is_not_in_the_cache_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(_: Hub, repo: str) -> Family:
        asked.append(repo)
        return Family((), "", ())

    monkeypatch.setattr(family, "on_hub", ask)
    family_at("someone/nothing")
    assert asked == ["someone/nothing"]


def test_a_file_or_nothing_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    with pytest.raises(InvalidRequest, match=r"m.gguf is a file; name its folder"):
        family_at(str(path))
    path.unlink()
    with pytest.raises(PullError, match=f"there are no models in {tmp_path}"):
        family_at(str(tmp_path))


@pytest.fixture
def hub(stand_in: StandIn, tmp_path: Path) -> StandIn:
    """Lists a family, of which only the smallest has a header."""
    head = mixtral.header(tmp_path / "head.gguf").read_bytes()
    files = {f"mix.{quant}.gguf": b"none" for quant in mixtral.CARD} | {
        "mix.Q2_K.gguf": head,
        "Q3/mix.Q3_K_L-00001-of-00002.gguf": b"none",
        "Q3/mix.Q3_K_L-00002-of-00002.gguf": b"none",
        "Q1/mix.IQ1_S-00001-of-00002.gguf": b"none",
        "mmproj-f16.gguf": b"eyes",
        "README.md": b"text",
    }
    stand_in.repos[REPO] = files
    sizes = {f"mix.{quant}.gguf": mixtral.size_of(quant) for quant in mixtral.CARD}
    stand_in.sizes.update(sizes)
    stand_in.sizes.update(dict.fromkeys([name for name in files if "Q3_K_L" in name], 10**10))
    return stand_in


def test_a_repository_is_listed_with_one_header_for_all(hub: StandIn) -> None:
    found = on_hub(Hub(hub.url), REPO)
    assert [member.quant for member in found.members] == [
        "Q2_K", "Q3_K_L", "Q3_K_M", "Q4_0", "Q4_K_M", "Q5_0", "Q5_K_M", "Q6_K", "Q8_0",
    ]  # fmt: skip
    for member in found.members:
        assert member.header is not None
        assert member.header.size_bytes == member.size_bytes
        assert member.header.n_embd_k * 4 == mixtral.CELL_BYTES
    assert found.members[1].size_bytes == 2 * 10**10
    assert found.faults == ("Q1/mix.IQ1_S: 1 of its 2 parts",)
    assert found.origin == f"of {REPO} at {hub.url}"
    assert [r.path for r in hub.requests if "/cdn/" in r.path] == ["/cdn/mix.Q2_K.gguf"]


def test_sizes_are_listed_where_no_header_is_to_be_had(hub: StandIn) -> None:
    hub.gated.add(REPO)
    found = on_hub(Hub(hub.url), REPO)
    assert len(found.members) == 9
    assert {member.header for member in found.members} == {None}
    assert found.faults[-1].startswith(f"no estimate: {REPO} is gated: ask for access")


def test_a_repository_without_models_is_told(hub: StandIn) -> None:
    hub.repos[REPO] = {"README.md": b"text"}
    with pytest.raises(PullError, match=f"there are no models of {REPO} at http"):
        on_hub(Hub(hub.url), REPO)
    with pytest.raises(InvalidRequest, match="there is no model someone/none"):
        on_hub(Hub(hub.url), "someone/none")
