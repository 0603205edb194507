"""What is kept of responses: asked for, listed, deleted, cancelled, told again."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import ResponseItemList

from server.ipc import Accepted, Delta, Event, Finished, GenerateRequest
from tests.api.openai.responses.wire import checked, events, keeping, whole
from tests.api.scripted import House, Line, error_of, house
from tests.contract.published import published

PATH = "/v1/responses"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def slow(_: int, __: GenerateRequest) -> list[Event]:
    """An answer of which the rest comes when the test says so."""
    return [Accepted(0, 7), Delta(0, "Hel", 1)]


async def finish(h: House, number: int = 0) -> None:
    """The rest of a slow answer."""
    h.worker.generations[number].push(Finished(0, "lo", 1, "stop", 7, 0, 2))


async def ended(h: House, id: str) -> Any:
    """A background response once it has ended."""
    line = Line(h.app, f"{PATH}/{id}", method="GET", query=b"stream=true")
    await line.run()
    assert line.status == 200
    return (await h.client.get(f"{PATH}/{id}")).json()


MISSING = (
    ("GET", ""),
    ("GET", "?stream=true"),
    ("DELETE", ""),
    ("POST", "/cancel"),
    ("GET", "/input_items"),
)


@pytest.mark.parametrize(("method", "rest"), MISSING)
async def test_unknown_ids(path: Path, method: str, rest: str) -> None:
    async with house() as off, keeping(path) as on:
        for h in (off, on):
            response = await h.client.request(method, f"{PATH}/resp_0{rest}")
            assert response.status_code == 404
            assert error_of(response) == {
                "message": "Response with id 'resp_0' not found.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }


async def test_it_is_kept_until_it_is_deleted(path: Path) -> None:
    async with keeping(path) as h:
        created = (await h.post(PATH, input="Hi")).json()
        url = f"{PATH}/{created['id']}"
        assert (await h.client.get(url)).json() == created
        deleted = await h.client.delete(url)
        assert deleted.json() == {"id": created["id"], "object": "response", "deleted": True}
        assert (await h.client.get(url)).status_code == 404
        assert (await h.client.delete(url)).status_code == 404


async def test_it_survives_a_restart(path: Path) -> None:
    async with keeping(path) as h:
        created = (await h.post(PATH, input="Hi")).json()
    async with keeping(path) as h:
        assert (await h.client.get(f"{PATH}/{created['id']}")).json() == created
        again = await h.post(PATH, input="And?", previous_response_id=created["id"])
        assert again.status_code == 200


class TestInputItems:
    async def ask(self, path: Path, query: str = "") -> Any:
        """The items of the second response of a conversation."""
        async with keeping(path) as h:
            first = (await h.post(PATH, input="one")).json()
            items = [
                {"role": "user", "content": "two", "id": "msg_two"},
                {"type": "function_call_output", "call_id": "c", "output": "three", "id": "fco_3"},
            ]
            second = await h.post(PATH, input=items, previous_response_id=first["id"])
            return await h.client.get(f"{PATH}/{second.json()['id']}/input_items{query}")

    def told(self, response: Any) -> Any:
        page = response.json()
        ResponseItemList.model_validate(page, strict=True)
        published().check("ResponseItemList", page)
        if page["data"]:
            assert (page["first_id"], page["last_id"]) == (
                page["data"][0]["id"],
                page["data"][-1]["id"],
            )
        return [self.text(item) for item in page["data"]], page["has_more"]

    def text(self, item: Any) -> str:
        return item.get("output") or item["content"][0]["text"]

    @pytest.mark.parametrize(
        ("query", "texts", "has_more"),
        [
            ("", ["three", "two", "Hello world", "one"], False),
            ("?order=asc", ["one", "Hello world", "two", "three"], False),
            ("?limit=2", ["three", "two"], True),
            ("?limit=2&after=fco_3", ["two", "Hello world"], True),
            ("?order=asc&after=msg_two", ["three"], False),
            ("?after=fco_3&order=asc", [], False),
            ("?include=message.input_image.image_url&limit=100", None, False),
        ],
    )
    async def test_pages(
        self, path: Path, query: str, texts: list[str] | None, has_more: bool
    ) -> None:
        found, more = self.told(await self.ask(path, query))
        assert more == has_more
        assert texts is None or found == texts

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("?limit=0", "limit"),
            ("?limit=101", "limit"),
            ("?order=up", "order"),
            ("?after=x", "after"),
        ],
    )
    async def test_bad_queries(self, path: Path, query: str, param: str) -> None:
        response = await self.ask(path, query)
        assert response.status_code == 400
        assert param in error_of(response)["message"]

    async def test_what_is_left_of_a_broken_conversation(self, path: Path) -> None:
        async with keeping(path) as h:
            first = (await h.post(PATH, input="one")).json()
            second = (await h.post(PATH, input="two", previous_response_id=first["id"])).json()
            await h.client.delete(f"{PATH}/{first['id']}")
            page = await h.client.get(f"{PATH}/{second['id']}/input_items")
            assert self.told(page) == (["two"], False)
            again = await h.post(PATH, input="three", previous_response_id=second["id"])
            assert again.status_code == 400
            assert first["id"] in error_of(again)["message"]


class TestBackground:
    async def test_it_is_answered_at_once(self, path: Path) -> None:
        async with keeping(path, slow) as h:
            queued = checked((await h.post(PATH, input="Hi", background=True)).json())
            assert (queued["status"], queued["background"]) == ("queued", True)
            url = f"{PATH}/{queued['id']}"
            assert checked((await h.client.get(url)).json())["status"] == "in_progress"
            again = await h.post(PATH, input="Hi", previous_response_id=queued["id"])
            assert "has not ended yet" in error_of(again)["message"]
            await finish(h)
            response = checked(await ended(h, queued["id"]))
            assert response["status"] == "completed"
            assert response["output"][0]["content"][0]["text"] == "Hello"
            again = await h.post(
                PATH, input="Hi", previous_response_id=queued["id"], background=True
            )
            assert again.status_code == 200

    async def test_followers_may_come_and_go(self, path: Path) -> None:
        async with keeping(path, slow) as h:
            line = Line.streaming(h.app, PATH, input="Hi", background=True)
            running = asyncio.create_task(line.run())
            await line.until(lambda line: b"output_text.delta" in line.received)
            id = events(line.received)[0]["response"]["id"]
            line.hung_up.set()
            await running
            assert h.worker.cancelled == []
            other = Line(h.app, f"{PATH}/{id}", method="GET", query=b"stream=true&starting_after=2")
            following = asyncio.create_task(other.run())
            await other.until(lambda line: b"output_text.delta" in line.received)
            await finish(h)
            await following
            seen = [*events(line.received), *events(other.received, 3)]
            told = {event["sequence_number"]: event for event in seen}
            assert list(told) == list(range(len(told)))
            assert [event["type"] for event in told.values()][:3] == [
                "response.created",
                "response.queued",
                "response.in_progress",
            ]
            again = await h.client.get(f"{PATH}/{id}?stream=true")
            assert events(again.content) == list(told.values())
            assert whole(again.content) == (await h.client.get(f"{PATH}/{id}")).json()
            rest = await h.client.get(f"{PATH}/{id}?stream=true&starting_after=8")
            assert events(rest.content, 9) == list(told.values())[9:]

    async def test_events_survive_a_restart(self, path: Path) -> None:
        async with keeping(path) as h:
            created = await h.post(PATH, input="Hi", background=True, stream=True)
            id = whole(created.content)["id"]
        async with keeping(path) as h:
            again = await h.client.get(f"{PATH}/{id}?stream=true")
            assert again.content == created.content

    async def test_cancelling(self, path: Path) -> None:
        async with keeping(path, slow) as h:
            id = (await h.post(PATH, input="Hi", background=True)).json()["id"]
            line = Line(h.app, f"{PATH}/{id}", method="GET", query=b"stream=true")
            following = asyncio.create_task(line.run())
            await line.until(lambda line: b"output_text.delta" in line.received)
            cancelled = checked((await h.client.post(f"{PATH}/{id}/cancel")).json())
            assert cancelled["status"] == "cancelled"
            assert h.worker.cancelled == [0]
            await following
            assert whole(line.received) == cancelled
            assert (await h.client.get(f"{PATH}/{id}")).json() == cancelled
            again = await h.client.post(f"{PATH}/{id}/cancel")
            assert again.status_code == 200 and again.json() == cancelled

    async def test_what_has_ended_is_not_cancelled(self, path: Path) -> None:
        async with keeping(path) as h:
            id = (await h.post(PATH, input="Hi", background=True)).json()["id"]
            response = await ended(h, id)
            assert (await h.client.post(f"{PATH}/{id}/cancel")).json() == response
            assert response["status"] == "completed"

    async def test_only_background_responses_are_cancelled_or_told_again(self, path: Path) -> None:
        async with keeping(path) as h:
            id = (await h.post(PATH, input="Hi")).json()["id"]
            refused = await h.client.post(f"{PATH}/{id}/cancel")
            assert refused.status_code == 400
            assert error_of(refused)["message"] == "Cannot cancel a synchronous response."
            refused = await h.client.get(f"{PATH}/{id}?stream=true")
            assert refused.status_code == 400 and error_of(refused)["param"] == "stream"
            refused = await h.client.get(f"{PATH}/{id}?starting_after=1")
            assert refused.status_code == 400 and error_of(refused)["param"] == "starting_after"

    async def test_deleting_cancels(self, path: Path) -> None:
        async with keeping(path, slow) as h:
            id = (await h.post(PATH, input="Hi", background=True)).json()["id"]
            assert (await h.client.delete(f"{PATH}/{id}")).json()["deleted"]
            assert h.worker.cancelled == [0]
            assert (await h.client.get(f"{PATH}/{id}")).status_code == 404

    async def test_ignored_fields_are_told_here_too(self, path: Path) -> None:
        async with keeping(path) as h:
            for stream in (False, True):
                response = await h.post(PATH, input="Hi", background=True, stream=stream, foo=1)
                assert response.headers["x-corral-ignored"] == "foo"
                assert json.loads(json.dumps(response.status_code)) == 200
