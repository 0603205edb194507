"""What was measured, and how it is kept."""

import logging
import os
from pathlib import Path

import pytest

from server.engine_config import EngineConfig
from server.pool import footprints
from server.pool.footprints import DEFAULT_SPEED, Footprint, Footprints, Told, key_of

SLOW = Footprint(more=5, load_s=4.0, size=100)
QUICK = Footprint(more=-5, load_s=1.0, size=400)


def test_they_are_there_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "footprints.json"
    kept = Footprints(path)
    kept.note("a", SLOW)
    kept.note("b", SLOW)
    kept.note("b", QUICK)
    kept.note("c", Told(ram=-7, gpus=(1, 2)))
    again = Footprints(path)
    assert (again.of("a"), again.of("b"), again.of("c")) == (SLOW, QUICK, None)
    assert (again.told("a"), again.told("c")) == (None, Told(ram=-7, gpus=(1, 2)))


def test_without_a_file() -> None:
    kept = Footprints(None)
    kept.note("a", SLOW)
    assert kept.of("a") == SLOW


def test_the_time_of_a_load() -> None:
    kept = Footprints(None)
    assert kept.load_s("a", int(DEFAULT_SPEED)) == 1.0
    kept.note("a", SLOW)
    kept.note("b", QUICK)
    kept.note("no file", Footprint(more=0, load_s=9.0, size=0))
    assert kept.load_s("a", 999) == 4.0, "as it took"
    assert kept.load_s("c", 1000) == 10.0, "500 bytes took 5 s"


def test_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprints, "MOST", 2)
    kept = Footprints(None)
    for key in ("a", "b", "a", "c"):
        kept.note(key, SLOW)
    assert [kept.of(key) is not None for key in "abc"] == [True, False, True]


@pytest.mark.parametrize(
    "content",
    ["", "{", '{"version": 2}', '{"version": 2, "taken": {"a": {"more": "x"}}, "told": {}}'],
)
def test_a_damaged_file_counts_as_none(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "footprints.json"
    path.write_text(content)
    kept = Footprints(path)
    assert f"{path} is made anew" in caplog.text
    kept.note("a", SLOW)
    assert Footprints(path).of("a") == SLOW


def test_another_version_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "footprints.json"
    path.write_text('{"version": 99, "taken": {}, "told": {}}')
    assert Footprints(path).of("a") is None


def test_a_file_that_cannot_be_written_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        kept = Footprints(tmp_path / "file" / "footprints.json")
        kept.note("a", SLOW)
    assert "footprints are not kept in" in caplog.text
    assert kept.of("a") == SLOW


def test_keys_change_with_the_file_and_with_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    missing = key_of(path, EngineConfig())
    path.write_bytes(b"x")
    key = key_of(path, EngineConfig())
    assert key_of(path, EngineConfig()) == key != missing
    assert key_of(path, EngineConfig(n_ctx=64)) != key
    os.utime(path, (1, 1))
    assert key_of(path, EngineConfig()) != key
