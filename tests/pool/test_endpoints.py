"""One spelling for each RPC server."""

import socket
from typing import Any

import pytest

from server.pool.endpoints import resolved


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("127.0.0.1:50052", "127.0.0.1:50052"),
        ("localhost:50052", "127.0.0.1:50052"),
        ("127.1:050", "127.0.0.1:50"),
        # What is not known is as it is written.
        ("no.such.host.invalid:1", "no.such.host.invalid:1"),
        (f"{'a' * 64}.b:1", f"{'a' * 64}.b:1"),
    ],
)
def test_one_spelling(endpoint: str, expected: str) -> None:
    assert resolved(endpoint) == expected


def test_a_name_of_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may come in any order."""
    found = [(2, 1, 6, "", ("10.0.0.2", 7)), (2, 1, 6, "", ("10.0.0.1", 7))]

    def getaddrinfo(*_: object) -> list[Any]:
        found.reverse()
        return found

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert {resolved("pair:7") for _ in range(4)} == {"10.0.0.1:7"}
