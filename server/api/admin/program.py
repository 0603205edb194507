"""Orders come from programs, not from any page that a browser has open."""

from fastapi import Request

from server.errors import InvalidRequest


def from_program(request: Request) -> None:
    """Raises InvalidRequest for a body that a page may send anywhere without being asked."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise InvalidRequest(f"content-type {kind!r}, application/json is wanted")
