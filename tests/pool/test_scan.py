"""What is found in folders and in the hub's cache."""

import logging
import os
from pathlib import Path

import pytest

from server.pool.scan import Found, hub_cache, in_folder, in_hub, model_at


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def told(found: list[Found]) -> list[tuple[str, str | None]]:
    """Each as folders/stem, with its fault."""
    return [("/".join((*each.repo, each.stem)), each.fault) for each in found]


def test_a_folder_and_those_inside(tmp_path: Path) -> None:
    touch(tmp_path, "b.Q4_0.gguf", "x/y/A.GGUF", "x/a.gguf", "x/readme.md", "x/a.gguf.part")
    touch(tmp_path, ".cache/c.gguf", "x/.d.gguf")
    found = in_folder(tmp_path)
    assert told(found) == [("b.Q4_0", None), ("x/a", None), ("x/y/A", None)]
    assert found[2].parts == (tmp_path / "x" / "y" / "A.GGUF",)
    assert found[2].folders == (*tmp_path.parts, "x", "y")


def test_a_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "m/x/a.gguf")
    monkeypatch.chdir(tmp_path)
    assert told(in_folder(Path("m"))) == [("x/a", None)]
    assert in_folder(Path("m"))[0].folders == (*tmp_path.parts, "m", "x")


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.gguf", "m/b.gguf")
    (tmp_path / "m" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "m")
    assert told(in_folder(tmp_path / "m")) == [("b", None), ("more/a", None)]


def test_a_folder_that_is_not_there_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert in_folder(tmp_path / "none") == []
    assert f"{tmp_path / 'none'} is not searched for models: No such file" in caplog.text


def test_parts_make_one_model(tmp_path: Path) -> None:
    names = [f"big-{i:05d}-of-00006.gguf" for i in range(1, 7)]
    touch(tmp_path, *names, "one-00001-of-00001.gguf", "other/big-00001-of-00006.gguf")
    found = in_folder(tmp_path)
    assert told(found) == [
        ("big", None),
        ("one", None),
        ("other/big", "parts 2, 3, 4, 5, 6 of 6 missing"),
    ]
    assert found[0].parts == tuple(tmp_path / name for name in names)


@pytest.mark.parametrize(
    ("there", "count", "fault"),
    [
        ([2, 3], 3, "part 1 of 3 missing"),
        ([1, 3], 3, "part 2 of 3 missing"),
        ([1], 99_999, "parts 2, 3, 4, 5, 6, 7, 8, 9, ... of 99999 missing"),
    ],
)
def test_missing_parts(tmp_path: Path, there: list[int], count: int, fault: str) -> None:
    touch(tmp_path, *(f"m-{i:05d}-of-{count:05d}.gguf" for i in there))
    assert told(in_folder(tmp_path)) == [("m", fault)]


def test_the_cache_of_the_hub(tmp_path: Path) -> None:
    repo = "models--Org--Some-Model-GGUF"
    touch(
        tmp_path,
        f"{repo}/blobs/abc",
        f"{repo}/snapshots/old/both.gguf",
        f"{repo}/snapshots/old/only.gguf",
        f"{repo}/snapshots/new/both.gguf",
        f"{repo}/snapshots/new/Q8_0/s-00001-of-00001.gguf",
        f"{repo}/snapshots/new/.hidden.gguf",
        "models--gpt2/snapshots/x/g.gguf",
        "datasets--Org--Data/snapshots/x/d.gguf",
    )
    (tmp_path / repo / "snapshots" / "file").touch()
    os.utime(tmp_path / repo / "snapshots" / "old", (1, 1))
    found = in_hub(tmp_path)
    assert told(found) == [
        ("Org/Some-Model-GGUF/Q8_0/s", None),
        ("Org/Some-Model-GGUF/both", None),
        ("Org/Some-Model-GGUF/only", None),
        ("gpt2/g", None),
    ]
    assert found[1].parts[0].parent.name == "new"
    touch(tmp_path, f"{repo}/refs/main")
    (tmp_path / repo / "refs" / "main").write_text("old")
    assert in_hub(tmp_path)[1].parts[0].parent.name == "old"


def test_no_cache_of_the_hub(tmp_path: Path) -> None:
    assert in_hub(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, "/home/ann/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HF_HOME": "~/hf", "XDG_CACHE_HOME": "/x"}, "/home/ann/hf/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/hf"}, "/old"),
        ({"HF_HUB_CACHE": "/hub", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/hf"}, "/hub"),
    ],
)
def test_where_the_cache_of_the_hub_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hub_cache() == Path(place)


def test_a_model_by_its_path(tmp_path: Path) -> None:
    touch(tmp_path, "s-00001-of-00003.gguf", "s-00003-of-00003.gguf")
    split = model_at(tmp_path / "s-00001-of-00003.gguf")
    assert (split.stem, split.n_parts, split.fault) == ("s", 3, "part 2 of 3 missing")
    assert model_at(tmp_path / "s-00003-of-00003.gguf").stem == "s-00003-of-00003"
    gone = model_at(tmp_path / "gone-00001-of-00002.gguf")
    assert gone.fault == "part 2 of 2 missing"
    assert model_at(tmp_path / "m-00001-of-00001.gguf").stem == "m"
    plain = model_at(tmp_path / "none.gguf")
    assert (plain.stem, plain.parts, plain.fault) == ("none", (tmp_path / "none.gguf",), None)
