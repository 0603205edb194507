"""The file of responses: what is kept, what goes, and files that are none."""

import asyncio
import json
import resource
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.api.openai.responses.store import ROW_BYTES, Record, ResponseStore, StoreFailed
from server.config import ConfigError
from server.errors import NotStored, PreviousNotStored

BUDGET = 2**20


@asynccontextmanager
async def opened(path: Path, budget: int = BUDGET) -> AsyncGenerator[ResponseStore]:
    store = ResponseStore(path, budget)
    try:
        yield store
    finally:
        await store.close()


def record(id: str, previous: str | None = None, text: str = "Hi", running: bool = False) -> Record:
    said = {"id": f"msg_{id}_in", "text": text}
    answered = {"id": f"msg_{id}_out", "text": text}
    body = json.dumps({"id": id, "output": [answered]})
    return Record(id, previous, body.encode(), json.dumps([said]).encode(), running=running)


async def ids(store: ResponseStore, *candidates: str) -> list[str]:
    """Those that are kept."""
    found: list[str] = []
    for id in candidates:
        try:
            found.append((await store.get(id)).id)
        except NotStored:
            continue
    return found


async def test_what_is_put_is_there(tmp_path: Path) -> None:
    events = (b"event: a\ndata: 1\n\n", b"event: b\ndata: 2\n\n")
    one = Record("resp_1", None, b'{"output": []}', b"[]", events)
    async with opened(tmp_path / "s.db") as store:
        await store.put(one)
        assert await store.get("resp_1") == one
        with pytest.raises(NotStored, match=r"^Response with id 'resp_2' not found\.$"):
            await store.get("resp_2")


async def test_it_survives(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        await store.put(record("a"))
        await store.put(record("b", "a"))
    async with opened(path) as store:
        assert [r.id for r in await store.chain("b")] == ["a", "b"]


async def test_putting_again_replaces(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await store.put(record("a", running=True))
        assert [r.id for r in await store.running()] == ["a"]
        await store.put(record("a", text="Ho"))
        assert (await store.get("a")).items[0]["text"] == "Ho"
        assert await store.running() == []
        await store.delete("a")
        assert await ids(store, "a") == []


async def test_a_chain(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        for id, previous in (("a", None), ("b", "a"), ("x", "a"), ("c", "b")):
            await store.put(record(id, previous))
        assert [r.id for r in await store.chain("c")] == ["a", "b", "c"]
        assert [r.id for r in await store.past(await store.get("c"))] == ["a", "b"]
        await store.delete("a")
        with pytest.raises(PreviousNotStored, match="'a' not found") as caught:
            await store.chain("c")
        assert caught.value.param == "previous_response_id"
        assert [r.id for r in await store.past(await store.get("c"))] == ["b"]


async def test_items(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await store.put(record("a", text="one"))
        # A client may send an item again that an answer brought.
        await store.put(record("b", text="two"))
        assert (await store.item("msg_a_in"))["text"] == "one"
        assert (await store.item("msg_b_out"))["text"] == "two"
        await store.delete("a")
        with pytest.raises(NotStored, match="Item with id 'msg_a_in' not found"):
            await store.item("msg_a_in")


async def test_an_item_of_two_responses_goes_with_the_last(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        twice = b'[{"id": "msg_1"}, {"id": "msg_1"}]'
        await store.put(Record("a", None, b'{"output": []}', twice))
        await store.put(Record("b", None, b'{"output": []}', twice))
        await store.delete("a")
        assert await store.item("msg_1") == {"id": "msg_1"}


def size_of(one: Record) -> int:
    return len(one.body) + len(one.input) + ROW_BYTES


async def test_the_oldest_go_first(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db", 3 * size_of(record("a"))) as store:
        for id in "abcde":
            await store.put(record(id))
        assert await ids(store, *"abcde") == ["c", "d", "e"]


async def test_a_conversation_that_goes_on_stays_whole(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db", 4 * size_of(record("a", "b"))) as store:
        await store.put(record("a"))
        await store.put(record("b"))
        await store.put(record("c", "a"))
        await store.chain("c")
        await store.put(record("d", "c"))
        await store.put(record("e"))
        assert await ids(store, *"abcde") == ["a", "c", "d", "e"]


async def test_the_budget_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    budget = 3 * size_of(record("a"))
    async with opened(path, budget) as store:
        for id in "abc":
            await store.put(record(id))
        await store.delete("b")
        await store.put(record("d"))
        assert await ids(store, *"abcd") == ["a", "c", "d"]
    async with opened(path, budget) as store:
        await store.put(record("e"))
        assert await ids(store, *"abcde") == ["c", "d", "e"]


async def test_what_is_too_large_is_refused_and_nothing_goes_for_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db", 4096) as store:
        await store.put(record("a"))
        with pytest.raises(StoreFailed, match="the store holds 4,096"):
            await store.put(record("b", text="x" * 5000))
        assert await ids(store, *"ab") == ["a"]


async def test_running_responses_do_not_go(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db", 2 * size_of(record("a"))) as store:
        await store.put(record("a", running=True))
        await store.put(record("b"))
        await store.put(record("c"))
        assert await ids(store, *"abc") == ["a", "c"]
        await store.put(record("d", running=True))
        with pytest.raises(StoreFailed, match="full of running responses"):
            await store.put(record("e"))
        assert await ids(store, *"abcde") == ["a", "d"]


async def test_many_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await asyncio.gather(*(store.put(record(f"r{i}")) for i in range(50)))
        got = await asyncio.gather(*(store.get(f"r{i}") for i in range(50)))
        assert [r.id for r in got] == [f"r{i}" for i in range(50)]


async def test_the_loop_goes_on_while_the_file_is_written(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db", 2**26) as store:
        putting = asyncio.create_task(store.put(record("a", text="x" * 10_000_000)))
        n = 0
        while not putting.done():
            n += 1
            await asyncio.sleep(0)
        assert n > 10


def test_text_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_text("This is not a database. " * 100)
    with pytest.raises(ConfigError, match=r"^server\.store: .*s\.db: file is not a database$"):
        ResponseStore(path, BUDGET)
    assert path.read_text().startswith("This is not")


def test_nor_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unable to open database file"):
        ResponseStore(tmp_path, BUDGET)
    with pytest.raises(ConfigError, match="unable to open database file"):
        ResponseStore(tmp_path / "no" / "s.db", BUDGET)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE things (name)")
    db.close()
    with pytest.raises(ConfigError, match="a database of something else"):
        ResponseStore(path, BUDGET)


async def test_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path):
        pass
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(ConfigError, match="of version 7, this is version 1"):
        ResponseStore(path, BUDGET)


async def test_a_damaged_file_is_found_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path) as store:
        for i in range(50):
            await store.put(record(f"r{i}", text="x" * 1000))
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 16384)
    with pytest.raises(ConfigError, match=r"server\.store"):
        ResponseStore(path, BUDGET)


async def test_one_server_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with opened(path):
        with pytest.raises(ConfigError, match="database is locked"):
            ResponseStore(path, BUDGET)


async def test_a_full_disk_loses_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path / "s.db") as store:
        await store.put(record("a"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(StoreFailed, match="the store of responses failed: d"):
                await store.put(record("b", text="x" * 300_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.put(record("c"))
        assert await ids(store, *"abc") == ["a", "c"]
