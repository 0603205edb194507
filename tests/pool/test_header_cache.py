"""Headers that are kept between runs, and what becomes of damaged files."""

import json
import logging
import os
from pathlib import Path

import pytest

from server.errors import ModelLoadError
from server.gguf import read_header
from server.pool import header_cache
from server.pool.header_cache import HeaderCache
from tests.gguf_files import write_gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "m.gguf")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "headers.json"


@pytest.fixture
def fill(model: Path, place: Path) -> None:
    """One run that keeps the model's header."""
    cache = HeaderCache(place)
    cache.read([model])
    cache.save()


@pytest.mark.usefixtures("fill")
def test_a_kept_header_is_not_read_again(
    model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_header(model)
    monkeypatch.setattr(header_cache, "read_header", None)
    assert HeaderCache(place).read([model]) == expected
    assert [path.name for path in place.parent.iterdir()] == ["headers.json"]


@pytest.mark.usefixtures("fill")
@pytest.mark.parametrize("change", ["size", "time"])
def test_a_changed_file_is(model: Path, place: Path, change: str) -> None:
    before = HeaderCache(place).read([model])
    stat = model.stat()
    write_gguf(model, n_tensors=2 if change == "size" else 1, general__name="new")
    if change == "size":
        os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert HeaderCache(place).read([model]) != before


def test_a_part_that_changes_counts(tmp_path: Path, place: Path) -> None:
    first = write_gguf(tmp_path / "s.gguf", n_parts=2)
    parts = [first, first.with_name("s-00002-of-00002.gguf")]
    cache = HeaderCache(place)
    before = cache.read(parts)
    with parts[1].open("ab") as file:
        file.write(bytes(10))
    assert cache.read(parts).size_bytes == before.size_bytes + 10


@pytest.mark.usefixtures("fill")
@pytest.mark.parametrize("damage", ["cut", "empty", "other", "version", "field"])
def test_damage_counts_as_nothing(model: Path, place: Path, damage: str) -> None:
    text = place.read_text()
    content = json.loads(text)
    match damage:
        case "cut":
            text = text[: len(text) // 2]
        case "empty":
            text = ""
        case "other":
            text = "[1, 2]"
        case "version":
            content["version"] += 1
            text = json.dumps(content)
        case _:
            content["files"][str(model)]["header"]["n_layer"] = "many"
            text = json.dumps(content)
    place.write_text(text)
    cache = HeaderCache(place)
    assert cache.read([model]) == read_header(model)
    cache.save()
    assert json.loads(place.read_text())["version"] == header_cache.VERSION


def test_files_that_are_gone_are_forgotten(model: Path, place: Path, tmp_path: Path) -> None:
    other = write_gguf(tmp_path / "other.gguf")
    for path in (model, other):
        cache = HeaderCache(place)
        cache.read([path])
        cache.save()
    assert json.loads(place.read_text())["files"].keys() == {str(model), str(other)}
    model.unlink()
    write_gguf(other, general__name="new")
    cache = HeaderCache(place)
    cache.read([other])
    cache.save()
    assert json.loads(place.read_text())["files"].keys() == {str(other)}


@pytest.mark.usefixtures("fill")
def test_nothing_is_written_where_nothing_changed(model: Path, place: Path) -> None:
    place.chmod(0o400)
    before = place.stat()
    cache = HeaderCache(place)
    cache.read([model])
    cache.save()
    assert place.stat() == before


def test_a_place_that_cannot_be_written_is_told(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache = HeaderCache(tmp_path / "file" / "headers.json")
    assert cache.read([model]) == read_header(model)
    with caplog.at_level(logging.WARNING):
        cache.save()
    assert "headers are not kept in" in caplog.text
    HeaderCache(None).save()


def test_a_failed_write_leaves_no_litter(model: Path, tmp_path: Path) -> None:
    place = tmp_path / "headers.json"
    place.mkdir()
    cache = HeaderCache(place)
    cache.read([model])
    cache.save()
    assert {path.name for path in tmp_path.iterdir()} == {"m.gguf", "headers.json"}


def test_faults_are_not_kept(tmp_path: Path, place: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"no")
    cache = HeaderCache(place)
    with pytest.raises(ModelLoadError):
        cache.read([path])
    cache.save()
    assert not place.exists()
    with pytest.raises(FileNotFoundError):
        cache.read([tmp_path / "none.gguf"])
