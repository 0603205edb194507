"""The folder of what is remembered."""

from pathlib import Path

import pytest

from server.pool.cache_folder import cache_folder


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("CORRAL_CACHE")
    assert cache_folder() == Path("/home/ann/.cache/corral")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/corral")
    monkeypatch.setenv("CORRAL_CACHE", "~/c")
    assert cache_folder() == Path("/home/ann/c")
