"""Runs: responses while they are made, for a client that waits or in the background."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from server.api.answers import Answers, Tokens
from server.api.errors import Told, told
from server.api.openai.responses.store import Record, ResponseStore, StoreFailed
from server.api.openai.responses.writer import Writer
from server.api.openai.turns import Said, TurnEnd, Turns
from server.errors import Unavailable

log = logging.getLogger(__name__)

STOPPED = "the server was stopped before the response was complete"


@dataclass
class Run:
    """One response that is being made. Whoever holds it must close it."""

    answers: Answers
    turns: Turns
    writer: Writer
    record: Record | None
    """As it began; None: it is not to be kept."""
    store: ResponseStore | None

    def close(self) -> None:
        """Nobody wants more of it. Safe to call again."""
        self.answers.close()

    async def events(self) -> AsyncGenerator[bytes]:
        """All its events; it is kept before the last one says that it is whole."""
        yield b"".join(self.writer.begin())
        async for frames in self.progress():
            yield b"".join(frames)
        yield b"".join(self.writer.last(await self._keep()))

    async def progress(self) -> AsyncGenerator[list[bytes]]:
        """The events between the first ones and the last one. Raises the answer's errors."""
        writer = self.writer
        async for event in self.answers.events():
            for said in self.turns.read(event):
                match said:
                    case Said():
                        yield writer.say(said)
                    case TurnEnd():
                        yield writer.end(said)
                    case Tokens():
                        writer.finish(said)

    def fail(self, answer: Told) -> bytes:
        """What it ends with where the answer has failed."""
        return b"".join(self.writer.fail(answer, stored=False))

    def ended(self) -> Record:
        """As it is now, to be kept."""
        assert self.record is not None
        return replace(self.record, body=self.writer.response.model_dump_json().encode())

    async def _keep(self) -> bool:
        """Whether it is kept. An answer is worth having also where it cannot be."""
        if self.store is None or self.record is None:
            return False
        try:
            await self.store.put(self.ended())
        except StoreFailed as error:
            log.error("%s: not kept: %s", self.record.id, error)
            return False
        return True


class BackgroundRun:
    """A run that nobody needs to wait for. It keeps what it has told until its end is stored."""

    def __init__(self, run: Run, store: ResponseStore):
        self.run = run
        self.frames = run.writer.begin()
        """Event by event; the n-th has the sequence number n."""
        self._store = store
        self._ended = False
        self._unwanted = False
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())
        self._completing = asyncio.create_task(self._complete())

    @property
    def response(self) -> bytes:
        """The response so far, as JSON."""
        return self.run.writer.response.model_dump_json().encode()

    async def follow(self, after: int) -> AsyncGenerator[bytes]:
        """The events that come after number `after`."""
        at = after + 1
        while True:
            changed = self._changed
            if at < len(self.frames):
                joined = b"".join(self.frames[at:])
                at = len(self.frames)
                yield joined
            elif self._ended:
                return
            else:
                await changed.wait()

    def cancel(self) -> None:
        """Somebody wants no more of it."""
        self._unwanted = True
        self._reading.cancel()

    def stop(self) -> None:
        """The server stops."""
        self._reading.cancel()

    async def completed(self) -> bool:
        """Wait for its end; False: it could not be stored."""
        return await asyncio.shield(self._completing)

    async def _read(self) -> None:
        async for frames in self.run.progress():
            self._tell(frames)

    async def _complete(self) -> bool:
        await asyncio.wait({self._reading})
        last = self._last()
        self.run.close()
        ended = replace(self.run.ended(), events=(*self.frames, *last))
        stored = True
        try:
            await self._store.put(ended)
        except StoreFailed as error:
            log.error("%s: not kept: %s", ended.id, error)
            stored = False
        self._ended = True
        self._tell(last)
        return stored

    def _last(self) -> list[bytes]:
        """The last events, by how the reading ended."""
        writer = self.run.writer
        if self._reading.cancelled():
            return (
                writer.cancel()
                if self._unwanted
                else writer.fail(told(Unavailable(STOPPED)), stored=True)
            )
        error = self._reading.exception()
        if error is None:
            return writer.last(stored=True)
        assert isinstance(error, Exception)
        return writer.fail(told(error), stored=True)

    def _tell(self, frames: list[bytes]) -> None:
        self.frames += frames
        # Each follower waits for the next news, not for news that came before.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Runs:
    """Owns the store and what runs in the background. Used on the event loop only."""

    def __init__(self, store: ResponseStore | None):
        self.store = store
        self._runs: dict[str, BackgroundRun] = {}
        self._watches = set[asyncio.Task[None]]()

    async def start(self) -> None:
        """Put an end to what was running when the server last stopped."""
        if self.store is None:
            return
        for record in await self.store.running():
            error = {"code": "server_error", "message": STOPPED}
            body = {**json.loads(record.body), "status": "failed", "error": error}
            encoded = json.dumps(body, separators=(",", ":")).encode()
            await self.store.put(replace(record, body=encoded, running=False))

    async def close(self) -> None:
        """End what runs, then close the store."""
        for run in self._runs.values():
            run.stop()
        await asyncio.gather(*self._watches)
        if self.store is not None:
            await self.store.close()

    def find(self, id: str) -> BackgroundRun | None:
        """A response that runs in the background."""
        return self._runs.get(id)

    async def begin(self, run: Run) -> BackgroundRun:
        """Let it go on by itself. Raises StoreFailed; then nothing runs."""
        assert self.store is not None
        await self.store.put(replace(run.ended(), running=True))
        background = BackgroundRun(run, self.store)
        self._runs[run.writer.response.id] = background
        watch = asyncio.create_task(self._watch(background))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return background

    async def _watch(self, background: BackgroundRun) -> None:
        """Forget a run once the store has it; one that it cannot take is told from memory."""
        if await background.completed():
            del self._runs[background.run.writer.response.id]
