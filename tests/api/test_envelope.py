"""Headers, counts and the last resort."""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress

import pytest
from starlette.types import Receive, Scope, Send

from server.api.envelope import Envelope
from server.errors import WorkerDied
from server.ipc import Accepted, Delta, Event
from server.metrics import Metrics
from server.pool.pool import Lease
from tests.api.scripted import HELLO, Line, Script, build, error_of, fail, house

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


# Leases.


def hang(_: int, __: object) -> list[Event]:
    return [Accepted(0, 7), Delta(0, "Well", 1)]


EXITS: list[tuple[Script, dict[str, object], int]] = [
    (HELLO, {}, 200),
    (HELLO, {"stream": True}, 200),
    (HELLO, {"n": 3}, 200),
    (HELLO, {"top_k": "many"}, 400),
    (fail(WorkerDied("gone")), {}, 500),
    (fail(WorkerDied("gone")), {"stream": True}, 500),
    (fail(WorkerDied("gone"), *hang(0, None)), {}, 500),
    (fail(WorkerDied("gone"), *hang(0, None)), {"stream": True}, 200),
    (broken, {}, 500),
    (broken, {"stream": True}, 500),
]


@pytest.mark.parametrize(("script", "body", "status"), EXITS)
async def test_a_lease_ends_with_its_answer(
    script: Script, body: dict[str, object], status: int
) -> None:
    async with house(script) as h:
        response = await h.chat(**body)
        assert response.status_code == status
        # It was held until then.
        assert (h.pool.n_leases, h.pool.most_leases) == (0, 1)


async def test_a_lease_is_held_while_the_answer_runs() -> None:
    app, pool = build(hang)
    line = Line.streaming(app)
    running = asyncio.create_task(line.run())
    await line.until(lambda line: b"Well" in line.received)
    assert pool.n_leases == 1
    line.hung_up.set()
    await running
    assert pool.n_leases == 0


LEAVING: list[tuple[str, Callable[[Line, "asyncio.Task[None]"], object]]] = [
    ("the client", lambda line, _: line.hung_up.set()),
    ("the server", lambda _, task: task.cancel()),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("who", "leave"), LEAVING)
async def test_a_lease_ends_with_who_leaves(
    who: str, leave: Callable[[Line, "asyncio.Task[None]"], object], stream: bool
) -> None:
    app, pool = build(hang)
    line = Line.streaming(app, stream=stream)
    running = asyncio.create_task(line.run())
    await pool.scripted.submitted.wait()
    assert pool.n_leases == 1, who
    leave(line, running)
    with suppress(asyncio.CancelledError):
        await running
    assert pool.n_leases == 0
    assert pool.scripted.cancelled == [0]


async def test_who_leaves_before_the_model_is_there_never_had_a_lease() -> None:
    app, pool = build()
    pool.loading = asyncio.Event()
    line = Line.streaming(app, stream=False)
    running = asyncio.create_task(line.run())
    await asyncio.sleep(0)
    line.hung_up.set()
    await running
    pool.loading.set()
    await asyncio.sleep(0)
    assert (pool.n_leases, pool.most_leases) == (0, 0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tokenize", {"prompt": "Hi"}),
        ("/v1/embeddings", {"input": "Hi"}),
        ("/v1/rerank", {"query": "Hi", "documents": ["a"]}),
        ("/v1/chat/completions/input_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
    ],
)
async def test_a_lease_of_a_question_ends(path: str, body: dict[str, object]) -> None:
    """Here with an error: nobody has said what to answer."""
    async with house() as h:
        assert (await h.post(path, **body)).status_code == 500
        assert (h.pool.n_leases, h.pool.most_leases) == (0, 1)


async def test_every_model_of_a_visit_is_given_back() -> None:
    """Whatever a route took, and however often."""
    released: list[int] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        visit = scope["state"]["visit"]
        visit.leases += [Lease(h.worker, lambda i=i: released.append(i)) for i in range(3)]
        visit.leases[1].release()
        raise KeyError("early")

    async with house() as h:
        line = Line(h.app, "/")
        envelope = Envelope(app, Metrics(lambda: {}))
        await envelope({"type": "http", "headers": []}, line.receive, line.send)
    assert line.status == 500
    assert released == [1, 0, 2]
