"""The process that lends devices: what it passes on, and how it ends."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from server.engine import llama, rpc_server
from server.engine.llama import backend
from server.errors import ModelLoadError
from server.threads import cores


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


@pytest.mark.parametrize(
    ("n_threads", "cache", "passed_on"),
    [
        (3, "folder", ("h:1", ("CPU",), 3, "folder")),
        (0, "", ("h:1", ("CPU",), cores(), None)),
    ],
)
def test_what_is_asked_for_is_passed_on(
    n_threads: int, cache: str, passed_on: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def lend(*arguments: Any) -> None:
        seen.append(arguments)

    monkeypatch.setattr(llama, "lend", lend)
    assert "no longer listening on h:1" in rpc_server.main("h:1", n_threads, cache, ("CPU",))
    assert seen == [passed_on]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_a_fault_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def lend(*_: Any) -> None:
        raise ModelLoadError("there is no device X")

    monkeypatch.setattr(llama, "lend", lend)
    assert rpc_server.main("h:1", 1, "", ()) == "there is no device X"
