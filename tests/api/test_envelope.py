"""Headers, counts and the last resort."""

import re

import pytest
from starlette.types import Receive, Scope, Send

from server.api.envelope import Envelope
from server.ipc import Event
from server.metrics import Metrics
from tests.api.scripted import HELLO, Line, build, error_of, house

FRESH = re.compile(r"req_[0-9a-f]{32}")


async def test_every_answer_has_an_id_and_a_time() -> None:
    async with house() as h:
        responses = [
            await h.chat(),
            await h.chat(stream=True),
            await h.chat(temperature="hot"),
            await h.client.get("/nowhere"),
            await h.client.delete("/v1/models"),
            await h.client.get("/healthz"),
        ]
    ids = [response.headers["x-request-id"] for response in responses]
    assert all(map(FRESH.fullmatch, ids))
    assert len(set(ids)) == len(ids)
    assert all(response.headers["openai-processing-ms"].isdigit() for response in responses)


@pytest.mark.parametrize("id", ["abc", "A b/~", "x" * 128])
async def test_a_sane_id_is_kept(id: str) -> None:
    async with house() as h:
        response = await h.client.get("/healthz", headers={"x-request-id": id})
    assert response.headers["x-request-id"] == id


@pytest.mark.parametrize("id", [b"", b"x" * 129, b"a\tb", b"\xe9"])
async def test_an_id_that_is_not_sane_is_replaced(id: bytes) -> None:
    app, _ = build()
    line = Line(app, "/healthz", headers=[(b"x-request-id", id)], method="GET")
    await line.run()
    assert FRESH.fullmatch(line.response_headers["x-request-id"])


def broken(number: int, _: object) -> list[Event]:
    raise ZeroDivisionError(number)


async def test_unforeseen_errors_are_answered(caplog: pytest.LogCaptureFixture) -> None:
    async with house() as h:
        h.worker.script = broken
        response = await h.chat()
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
    assert "ZeroDivisionError" not in response.text
    assert "ZeroDivisionError" in caplog.text
    assert FRESH.fullmatch(response.headers["x-request-id"])


async def test_an_error_after_the_headers_reaches_the_server() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("late")

    outer, _ = build()
    line = Line(outer, "/")
    envelope = Envelope(app, Metrics(lambda: {}))

    with pytest.raises(KeyError):
        await envelope({"type": "http", "headers": []}, line.receive, line.send)
    assert [message["type"] for message in line.sent] == ["http.response.start"]


async def test_requests_are_counted_by_model_endpoint_and_status() -> None:
    async with house() as h:
        await h.chat()
        await h.chat(model="made up by a client")
        await h.chat(temperature=-1)
        await h.client.post("/completions", content=b"{")
        await h.client.get("/made/up/by/a/client")
        await h.client.get("/v1/models/org/tiny")
        text = (await h.client.get("/metrics")).text
    counted = set(re.findall(r"corral_requests_total\{(.*)\} 1\.0", text))
    assert counted == {
        'endpoint="/chat/completions",model="org/tiny",status="200"',
        'endpoint="/chat/completions",model="",status="404"',
        'endpoint="/chat/completions",model="org/tiny",status="400"',
        'endpoint="/completions",model="",status="400"',
        'endpoint="",model="",status="404"',
        'endpoint="/models/{id:path}",model="org/tiny",status="200"',
    }


async def test_other_protocols_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope["type"])

    outer, _ = build(HELLO)
    line = Line(outer, "/")
    await Envelope(app, Metrics(lambda: {}))({"type": "lifespan"}, line.receive, line.send)
    assert seen == ["lifespan"]
