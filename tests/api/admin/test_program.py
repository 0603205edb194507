"""Who may give orders."""

import pytest
from starlette.requests import Request

from server.api.admin.program import from_program
from server.errors import InvalidRequest


def request(kind: bytes | None) -> Request:
    headers = [] if kind is None else [(b"content-type", kind)]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    "kind",
    [b"application/json", b"Application/JSON", b"application/json; charset=utf-8"],
)
def test_programs(kind: bytes) -> None:
    from_program(request(kind))


@pytest.mark.parametrize(
    "kind",
    [
        None,
        b"",
        b"text/plain",
        b"text/plain; application/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=application/json",
        b"application/jsonp",
    ],
)
def test_what_a_page_may_send_anywhere(kind: bytes | None) -> None:
    with pytest.raises(InvalidRequest, match="application/json is wanted"):
        from_program(request(kind))
