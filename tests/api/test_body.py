"""Body limits and reading."""

import asyncio
import json

import pytest

from server.api.body import BodyLimit
from tests.api.scripted import MODEL, Line, build, error_of, house

BODY = json.dumps({"model": MODEL, "prompt": "x" * 200}).encode()


async def test_an_announced_body_is_refused_before_it_is_read() -> None:
    app, _ = build(max_body=100)
    line = Line(app, "/v1/completions", BODY, [(b"content-length", b"%d" % len(BODY))])
    await line.run()
    assert line.status == 413
    assert line.n_received == 0
    error = json.loads(line.received)["error"]
    assert error["message"] == f"body of {len(BODY)} bytes, at most 100 are accepted"
    assert error["type"] == "invalid_request_error"


async def test_a_chunked_body_is_read_no_further_than_the_limit() -> None:
    app, pool = build(max_body=100)
    line = Line(app, "/v1/completions", chunks=[b"x" * 60] * 10)
    await line.run()
    assert line.status == 413
    assert line.n_received == 2
    assert json.loads(line.received)["error"]["message"].startswith("body of 120 or more bytes")
    assert pool.scripted.requests == []


async def test_a_length_that_lies_does_not_help() -> None:
    app, _ = build(max_body=100)
    line = Line(app, "/v1/completions", BODY, [(b"content-length", b"5")])
    await line.run()
    assert line.status == 413


@pytest.mark.parametrize(("limit", "status"), [(len(BODY), 200), (len(BODY) - 1, 413)])
async def test_the_limit_itself_is_accepted(limit: int, status: int) -> None:
    async with house(max_body=limit) as h:
        response = await h.client.post("/v1/completions", content=BODY)
    assert response.status_code == status
    if status == 413:
        assert f"{limit}" in error_of(response)["message"]


@pytest.mark.parametrize("type", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_the_content_type_does_not_matter(type: str) -> None:
    async with house() as h:
        response = await h.client.post(
            "/v1/completions", content=BODY, headers={"content-type": type}
        )
    assert response.status_code == 200


async def test_a_client_that_leaves_while_it_sends() -> None:
    app, pool = build()
    line = Line(app, "/v1/completions", chunks=[b"{", b""])
    line.never_ends = True
    line.hung_up.set()
    async with asyncio.timeout(10):
        await line.run()
    assert line.status == 499
    assert pool.scripted.requests == []


async def test_other_protocols_pass() -> None:
    app, _ = build()
    line = Line(app, "/")
    seen: list[str] = []

    async def inner(_: object, __: object, ___: object) -> None:
        seen.append("called")

    await BodyLimit(inner, 1)({"type": "lifespan"}, line.receive, line.send)
    assert seen == ["called"]
