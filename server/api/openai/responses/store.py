"""Store: finished responses in a SQLite file, within a budget of bytes.

One connection, used by one thread that is no event loop's: calls queue up there, so each sees the
file whole. The file is locked for as long as it is open.

What has not been used for longest goes first. To continue a conversation is to use all of it, so
its beginning is not lost before its end.
"""

import asyncio
import json
import logging
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from server.config import ConfigError
from server.errors import CorralError, NotStored, PreviousNotStored

log = logging.getLogger(__name__)

APPLICATION = 0x436F7272
"""Marks a file as ours."""

VERSION = 1

ROW_BYTES = 512
"""What a row costs beside its own bytes, about."""

SCHEMA = f"""
CREATE TABLE responses (
    id TEXT PRIMARY KEY,
    previous TEXT,
    used INTEGER NOT NULL,
    running INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL,
    input BLOB NOT NULL,
    events BLOB
);
CREATE INDEX responses_used ON responses (used);
CREATE TABLE items (
    id TEXT NOT NULL,
    response TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    PRIMARY KEY (id, response)
) WITHOUT ROWID;
CREATE INDEX items_response ON items (response);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""

T = TypeVar("T")


class StoreFailed(CorralError):
    """The file cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Record:
    """One response as it is kept."""

    id: str
    previous: str | None
    body: bytes
    """The response object as JSON."""
    input: bytes
    """The items that were given with the request, as a JSON list."""
    events: tuple[bytes, ...] = ()
    """The events of a background response, to be told again."""
    running: bool = False
    """It will be put again when it ends."""

    @property
    def items(self) -> list[dict[str, object]]:
        """All that was said: the input and then the output."""
        return [*json.loads(self.input), *json.loads(self.body)["output"]]


class ResponseStore:
    """The open file. Raises StoreFailed where it cannot be used."""

    def __init__(self, path: Path, budget: int):
        """Open or make the file at `path`. Raises ConfigError with SQLite's reason."""
        self._budget = budget
        self._thread = ThreadPoolExecutor(1, "store")
        try:
            self._db = _open(path)
        except sqlite3.Error as error:
            raise ConfigError(f"server.store: {path}: {error}") from error
        total, used = self._db.execute(
            "SELECT coalesce(sum(size), 0), coalesce(max(used), 0) FROM responses"
        ).fetchone()
        self._total: int = total
        self._used: int = used
        # From here on these are the thread's alone.

    async def close(self) -> None:
        """No call may be under way or follow."""
        await self._run(self._db.close)
        self._thread.shutdown()

    async def put(self, record: Record) -> None:
        """Keep a response, in place of what was kept under its id. Others may have to go."""
        await self._run(lambda: self._put(record))

    async def get(self, id: str) -> Record:
        """Raises NotStored."""
        return await self._run(lambda: self._get(id))

    async def chain(self, id: str) -> Sequence[Record]:
        """The conversation that ended with response `id`, oldest first.

        Raises PreviousNotStored where any of it is missing.
        """
        return await self._run(lambda: self._chain(id))

    async def past(self, record: Record) -> Sequence[Record]:
        """What is left of the conversation before a response, oldest first."""
        return await self._run(lambda: self._walk(record.previous)[0])

    async def delete(self, id: str) -> None:
        """Raises NotStored."""
        await self._run(lambda: self._delete(id))

    async def item(self, id: str) -> dict[str, object]:
        """An item of any response. Raises NotStored."""
        return await self._run(lambda: self._item(id))

    async def running(self) -> Sequence[Record]:
        """The responses that were running when they were last put."""
        return await self._run(self._running)

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except sqlite3.Error as error:
            raise StoreFailed(f"the store of responses failed: {error}") from error

    def _put(self, record: Record) -> None:
        events = zlib.compress(b"".join(record.events), 1) if record.events else None
        size = len(record.body) + len(record.input) + len(events or b"") + ROW_BYTES
        if size > self._budget:
            raise StoreFailed(f"a response of {size:,} bytes; the store holds {self._budget:,}")
        self._used += 1
        row = (record.id, record.previous, self._used, record.running, size)
        ids = {(str(item["id"]), record.id) for item in record.items}
        with self._db:
            freed = self._remove(record.id)
            self._db.execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, record.body, record.input, events),
            )
            self._db.executemany("INSERT INTO items VALUES (?, ?)", ids)
            total = self._total + size - freed
            while total > self._budget:
                oldest = self._oldest(record.id)
                if oldest is None:
                    raise StoreFailed("the store is full of running responses")
                total -= self._remove(oldest)
        self._total = total

    def _oldest(self, but: str) -> str | None:
        """Which response is to go next."""
        row = self._db.execute(
            "SELECT id FROM responses WHERE NOT running AND id != ? ORDER BY used LIMIT 1", (but,)
        ).fetchone()
        return None if row is None else row[0]

    def _remove(self, id: str) -> int:
        """The bytes that are free now."""
        row = self._db.execute("SELECT size FROM responses WHERE id = ?", (id,)).fetchone()
        self._db.execute("DELETE FROM responses WHERE id = ?", (id,))
        return 0 if row is None else row[0]

    def _get(self, id: str) -> Record:
        found = self._select("WHERE id = ?", id)
        if not found:
            raise not_stored(id)
        return found[0]

    def _select(self, where: str, *values: str) -> list[Record]:
        rows = self._db.execute(
            f"SELECT id, previous, body, input, events, running FROM responses {where}", values
        )
        return [
            Record(id, previous, body, input, _frames(events), bool(running))
            for id, previous, body, input, events, running in rows
        ]

    def _chain(self, id: str) -> list[Record]:
        records, missing = self._walk(id)
        if missing is not None:
            raise previous_not_stored(missing)
        with self._db:
            for record in records:
                self._used += 1
                self._db.execute(
                    "UPDATE responses SET used = ? WHERE id = ?", (self._used, record.id)
                )
        return records

    def _walk(self, id: str | None) -> tuple[list[Record], str | None]:
        """Response `id` and those before it, oldest first, and which of them is missing."""
        records: list[Record] = []
        while id is not None:
            found = self._select("WHERE id = ?", id)
            if not found:
                break
            records += found
            id = found[0].previous
        records.reverse()
        return records, id

    def _delete(self, id: str) -> None:
        with self._db:
            freed = self._remove(id)
        if not freed:
            raise not_stored(id)
        self._total -= freed

    def _item(self, id: str) -> dict[str, object]:
        found = self._select("WHERE id = (SELECT response FROM items WHERE id = ? LIMIT 1)", id)
        for record in found:
            for item in record.items:
                if item["id"] == id:
                    return item
        raise item_not_stored(id)

    def _running(self) -> list[Record]:
        return self._select("WHERE running")


def _open(path: Path) -> sqlite3.Connection:
    """A connection that holds the file alone, its tables made."""
    db = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        (n_tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not n_tables:
            db.executescript(SCHEMA)
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION:
            raise sqlite3.DatabaseError("a database of something else")
        if version != VERSION:
            raise sqlite3.DatabaseError(f"of version {version}, this is version {VERSION}")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"damaged: {verdict}")
    except BaseException:
        db.close()
        raise
    return db


def _frames(events: bytes | None) -> tuple[bytes, ...]:
    """Events apart again; each ends in an empty line."""
    if events is None:
        return ()
    frames = zlib.decompress(events).split(b"\n\n")[:-1]
    return tuple(frame + b"\n\n" for frame in frames)


def not_stored(id: str) -> NotStored:
    return NotStored(f"Response with id '{id}' not found.")


def previous_not_stored(id: str) -> PreviousNotStored:
    return PreviousNotStored(
        f"Previous response with id '{id}' not found.", param="previous_response_id"
    )


def item_not_stored(id: str) -> NotStored:
    return NotStored(
        f"Item with id '{id}' not found. Items are not persisted when `store` is set to false. "
        "Try again with `store` set to true, or remove this item from your input.",
        param="input",
    )
