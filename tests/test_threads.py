"""How cores are counted and shared out."""

import pytest

from server.threads import cores, share


@pytest.mark.parametrize(
    ("n_cores", "allowed", "threads"),
    [(None, 4, 1), (1, 4, 1), (12, 24, 12), (12, 3, 3), (12, None, 12)],
)
def test_cores(
    n_cores: int | None, allowed: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cpu_count(logical: bool) -> int | None:
        assert not logical
        return n_cores

    def affinity(_: int) -> set[int]:
        assert allowed is not None
        return set(range(allowed))

    monkeypatch.setattr("psutil.cpu_count", cpu_count)
    if allowed is None:
        monkeypatch.delattr("os.sched_getaffinity")
    else:
        monkeypatch.setattr("os.sched_getaffinity", affinity)
    assert cores() == threads


@pytest.mark.parametrize(
    ("n_cores", "n_busy", "threads"),
    [(8, 0, 8), (8, 1, 8), (8, 2, 4), (8, 3, 2), (2, 2, 1), (2, 5, 1), (1, 1, 1)],
)
def test_share(n_cores: int, n_busy: int, threads: int) -> None:
    assert share(n_cores, n_busy) == threads
