"""What a real worker takes of memory while it generates."""

import asyncio
from pathlib import Path

import psutil

from server.config import ModelConfig
from server.engine_config import EngineConfig
from server.ipc import GenerateRequest
from server.pool.machine import Taken, taken, watch
from server.pool.process import COMMAND
from server.pool.spare import Spare
from server.pool.suspects import Suspects
from server.pool.worker import Worker
from server.sampling import SamplingParams


def taken_by_a_worker(path: Path, config: EngineConfig, n_prompt: int) -> Taken:
    """After a prompt of so many tokens and a few more, of ids that any vocabulary has."""
    return asyncio.run(_measure(path, config, n_prompt))


async def _measure(path: Path, config: EngineConfig, n_prompt: int) -> Taken:
    before = set(psutil.Process().children())
    worker = Worker("measured", ModelConfig(path=path, engine=config), Suspects(), "warning")
    await worker.start(Spare(COMMAND))
    try:
        (process,) = set(psutil.Process().children()) - before
        watch(process.pid)
        request = GenerateRequest(
            prompt=tuple(100 + number % 400 for number in range(n_prompt)),
            sampling=SamplingParams(seed=1, ignore_eos=True),
            max_tokens=4,
        )
        generation = worker.submit(request)
        await generation.accepted()
        async for _ in generation:
            pass
        return taken(process.pid, path)
    finally:
        await worker.close()
