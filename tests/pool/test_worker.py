"""One worker's pipe on the event loop that the server runs on."""

import asyncio
from pathlib import Path

import pytest

from server.config import ModelConfig
from server.engine_config import EngineConfig
from server.ipc import Embed, Embedded
from server.pool.process import COMMAND
from server.pool.spare import Spare
from server.pool.suspects import Suspects
from server.pool.worker import Worker
from tests import bert

uvloop = pytest.importorskip("uvloop")


def test_messages_larger_than_the_sockets_buffer(tmp_path: Path) -> None:
    """uvloop makes what it watches non-blocking, and neither side may lose a part for it."""
    path = bert.tiny(n_embd=64).write(tmp_path / "tiny.gguf")
    config = ModelConfig(path=path, engine=EngineConfig(n_threads=1))
    texts = tuple(f"the cat {n} sat on the mat" + " " * 400 for n in range(2000))

    async def ask() -> Embedded:
        worker = Worker("tiny", config, Suspects(), "warning")
        await worker.start(Spare(COMMAND))
        try:
            async with asyncio.timeout(60):
                return await worker.ask(Embed(texts), Embedded)
        finally:
            await worker.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(ask())
    assert len(told.vectors) == 2000
    assert {len(vector) for vector in told.vectors} == {256}
