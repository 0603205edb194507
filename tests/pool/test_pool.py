"""The pool and its workers, with real processes: a scripted one, and the real one miscompiled."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from server.config import Config, ModelConfig, ServerConfig
from server.engine_config import EngineConfig
from server.errors import (
    CorralError,
    InvalidRequest,
    ModelLoadError,
    ModelNotFound,
    QueueFull,
    RequestRefused,
    Unavailable,
    WorkerDied,
)
from server.ipc import (
    Delta,
    Detokenize,
    Detokenized,
    Echo,
    Finished,
    GenerateRequest,
    Text,
    Tokenize,
    Tokenized,
)
from server.pool.generation import Generation
from server.pool.keeper import BACK_OFF_S
from server.pool.pool import ModelPool
from server.pool.spare import Spare
from server.pool.suspects import Suspects
from server.pool.worker import CrashedInWarmUp, Worker
from server.sampling import SamplingParams
from tests.pool.scripted_worker import INFO

LIMIT_S = 60
"""Nothing here takes so long; a test that hangs fails instead."""

SMALL = EngineConfig(n_ctx=64, n_slots=2, n_batch=32, n_ubatch=32, n_threads=1, max_waiting=1)


class Starts:
    """What the scripted workers wrote of their starts."""

    def __init__(self, path: Path):
        self.path = path

    def command(self, modes: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "tests.pool.scripted_worker", str(self.path), modes)

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    @property
    def pids(self) -> list[int]:
        return [int(line.split()[0]) for line in self.lines]

    @property
    def extra_bufts(self) -> list[bool]:
        return [line.split()[1] == "True" for line in self.lines]


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    return Starts(tmp_path / "starts")


class OpenPool(Protocol):
    """Settings of the server, and the modes of the scripted worker, to a pool."""

    def __call__(
        self,
        modes: str = "serve",
        *,
        preload: bool = False,
        engine: EngineConfig = SMALL,
        **server: Any,
    ) -> AbstractAsyncContextManager[ModelPool]: ...


@pytest.fixture
def open_pool(starts: Starts, tmp_path: Path) -> OpenPool:
    @asynccontextmanager
    async def opened(
        modes: str = "serve",
        *,
        preload: bool = False,
        engine: EngineConfig = SMALL,
        **server: Any,
    ) -> AsyncGenerator[ModelPool]:
        model = ModelConfig(path=tmp_path / "m.gguf", preload=preload, engine=engine)
        config = Config(server=ServerConfig(**server), models={"m": model})
        async with running(ModelPool(config, Spare(starts.command(modes)))) as pool:
            yield pool

    return opened


@asynccontextmanager
async def running(pool: ModelPool) -> AsyncGenerator[ModelPool]:
    """Closed at the end, and nothing may be left of it."""
    async with asyncio.timeout(LIMIT_S):
        try:
            yield pool
        finally:
            await pool.close()
        me = psutil.Process()
        assert [child for child in me.children() if child.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.pool.keeper.BACK_OFF_S", (0.0,))


@pytest.fixture
def no_cool_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.pool.resident.COOL_DOWN_S", 0.0)


def request(prompt: str = "words") -> GenerateRequest:
    return GenerateRequest(Text(prompt), SamplingParams())


async def told(generation: Generation) -> list[Delta | Finished]:
    await generation.accepted()
    return [event async for event in generation if not isinstance(event, Echo)]


async def text(generation: Generation) -> str:
    return "".join(event.text for event in await told(generation))


async def worker_of(pool: ModelPool, model: str = "m") -> Worker:
    """Loaded as for a request; nobody holds it."""
    lease = await pool.lease(model, pool.config.server.load_wait_s)
    lease.release()
    return lease.worker


async def ask(pool: ModelPool, prompt: str = "words") -> str:
    return await text((await worker_of(pool)).submit(request(prompt)))


async def first_delta(generation: Generation) -> str:
    """Read until some text has come."""
    await generation.accepted()
    event = await anext(aiter(generation))
    assert isinstance(event, Delta)
    return event.text


async def hang(pool: ModelPool) -> Generation:
    """A request that has begun to stream and does not end by itself."""
    generation = (await worker_of(pool)).submit(request("hang"))
    assert await first_delta(generation) == "Well"
    return generation


# Loading.


async def test_a_request_loads_its_model(open_pool: OpenPool, starts: Starts) -> None:
    async with open_pool() as pool:
        await pool.start()
        assert starts.lines == [] and pool.loads() == {}
        worker = await worker_of(pool)
        assert worker.info == INFO
        assert (worker.model, worker.progress, worker.alive) == ("m", 1.0, True)
        assert await worker_of(pool) is worker
        assert await text(worker.submit(request())) == "Hello world"
        assert len(starts.lines) == 1


async def test_preloaded_models_make_the_pool_ready(open_pool: OpenPool, starts: Starts) -> None:
    async with open_pool(preload=True) as pool:
        assert not pool.ready()
        await pool.start()
        assert not pool.ready()
        await worker_of(pool)
        assert pool.ready()
        await pool.close()
        assert not pool.ready()
    assert len(starts.lines) == 1


async def test_a_pool_without_preloads_is_ready(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        assert pool.ready()


async def test_the_terminals_ctrl_c_does_not_reach_a_worker(
    open_pool: OpenPool, starts: Starts
) -> None:
    async with open_pool() as pool:
        await worker_of(pool)
        assert os.getpgid(starts.pids[0]) != os.getpgid(0)


async def test_concurrent_requests_load_once(open_pool: OpenPool, starts: Starts) -> None:
    async with open_pool() as pool:
        workers = await asyncio.gather(*(worker_of(pool) for _ in range(5)))
        assert len({id(worker) for worker in workers}) == 1
        assert len(starts.lines) == 1


async def test_a_model_that_is_not_configured(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        with pytest.raises(ModelNotFound, match="'gpt-9' does not exist; known: m") as caught:
            await worker_of(pool, "gpt-9")
        assert caught.value.param == "model"


async def test_questions_take_no_slot(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        generation = await hang(pool)
        worker = await worker_of(pool)
        told = [worker.ask(Tokenize(text), Tokenized) for text in ("a", "b", "c", "d", "e")]
        assert [reply.pieces for reply in await asyncio.gather(*told)] == [
            (b"a",), (b"b",), (b"c",), (b"d",), (b"e",)
        ]  # fmt: skip
        with pytest.raises(InvalidRequest, match="no") as caught:
            await worker.ask(Detokenize((1,)), Detokenized)
        assert caught.value.param == "tokens"
        generation.close()


async def test_a_question_that_nobody_waits_for_is_cancelled(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        worker = await worker_of(pool)
        asking = asyncio.create_task(worker.ask(Tokenize("hang"), Tokenized))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        seen = await worker.ask(Tokenize("commands"), Tokenized)
        assert seen.pieces == (b"Ask", b"Cancel", b"Ask")


async def test_questions_end_with_the_worker(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        worker = await worker_of(pool)
        asking = asyncio.create_task(worker.ask(Tokenize("hang"), Tokenized))
        await asyncio.sleep(0)
        os.kill(int(await ask(pool, "pid")), signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await asking
        with pytest.raises(Unavailable):
            await worker.ask(Tokenize("a"), Tokenized)


async def test_an_empty_pool() -> None:
    async with running(ModelPool(Config())) as pool:
        await pool.start()
        assert pool.ready()
        with pytest.raises(ModelNotFound, match="known: none"):
            await worker_of(pool)


async def test_the_models_and_their_age(open_pool: OpenPool, tmp_path: Path) -> None:
    async with open_pool() as pool:
        assert list(pool.models) == ["m"]
        assert pool.created("m") == 0
        (tmp_path / "m.gguf").write_bytes(b"")
        os.utime(tmp_path / "m.gguf", (1, 1_700_000_000.9))
        assert pool.created("m") == 1_700_000_000


async def test_a_failed_load_has_its_reason_and_cools_down(
    open_pool: OpenPool, starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_pool("fail,serve", preload=True) as pool:
        await pool.start()
        for _ in range(3):
            with pytest.raises(ModelLoadError) as caught:
                await worker_of(pool)
            assert caught.value.message == f"cannot load {tmp_path / 'm.gguf'}: bad magic"
        assert len(starts.lines) == 1
        assert not pool.ready()
        monkeypatch.setattr("server.pool.resident.COOL_DOWN_S", 0.0)
        assert await ask(pool) == "Hello world"
        assert pool.ready()
        assert len(starts.lines) == 2


async def test_all_who_wait_learn_of_the_failure(open_pool: OpenPool, starts: Starts) -> None:
    async with open_pool("fail") as pool:
        asked = [worker_of(pool) for _ in range(4)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(result, ModelLoadError) for result in results)
        assert len(starts.lines) == 1


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        ("exit", "exit status 3"),
        ("crash_loading", "signal SIGSEGV"),
        ("killed", "signal SIGKILL"),
    ],
)
async def test_a_worker_that_dies_while_it_loads(
    mode: str, how: str, open_pool: OpenPool, starts: Starts
) -> None:
    """Not what a miscompiled kernel does, so it is not tried again without repacking."""
    async with open_pool(mode) as pool:
        with pytest.raises(ModelLoadError, match=f"model m: its worker died: {how}"):
            await worker_of(pool)
    assert starts.extra_bufts == [True]


async def test_a_worker_that_cannot_be_started(tmp_path: Path, no_cool_down: None) -> None:
    del no_cool_down
    n_open = psutil.Process().num_fds()
    config = Config(models={"m": ModelConfig(path=tmp_path / "m.gguf")})
    async with running(ModelPool(config, Spare((str(tmp_path / "no such program"),)))) as pool:
        for _ in range(3):
            with pytest.raises(ModelLoadError, match=r"no worker can be started: .*No such file"):
                await worker_of(pool)
        assert psutil.Process().num_fds() <= n_open + 1


@pytest.mark.parametrize("wait_s", [0, 0.05])
async def test_a_slow_load_is_unavailable(wait_s: float, open_pool: OpenPool) -> None:
    async with open_pool("slow", load_wait_s=wait_s) as pool:
        with pytest.raises(Unavailable, match=rf"m is still loading after {wait_s} s \(") as caught:
            await worker_of(pool)
        assert caught.value.retry_after == 1.0


# Crashes in the warm-up decode.


async def test_a_crash_in_warm_up_is_tried_once_more_without_repacking(
    open_pool: OpenPool, starts: Starts, caplog: pytest.LogCaptureFixture, no_back_off: None
) -> None:
    del no_back_off
    async with open_pool("crash_with_extra_bufts") as pool:
        assert await ask(pool) == "Hello world"
        assert starts.extra_bufts == [True, False]
        (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
        for words in ("model m: its worker died: signal SIGSEGV", "AMX", "-fno-tree-dse -fno-dse"):
            assert words in warning.getMessage()
        # It is remembered.
        with pytest.raises(WorkerDied):
            await ask(pool, "die")
        assert await ask(pool) == "Hello world"
        assert starts.extra_bufts == [True, False, False]


async def test_a_second_crash_in_warm_up_is_an_error(open_pool: OpenPool, starts: Starts) -> None:
    async with open_pool("crash") as pool:
        with pytest.raises(CrashedInWarmUp, match="signal SIGSEGV"):
            await worker_of(pool)
    assert starts.extra_bufts == [True, False]


async def test_nothing_is_tried_where_nothing_is_repacked(
    open_pool: OpenPool, starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    engine = SMALL.model_copy(update={"use_extra_bufts": False})
    async with open_pool("crash", engine=engine) as pool:
        with pytest.raises(CrashedInWarmUp):
            await worker_of(pool)
    assert starts.extra_bufts == [False]
    assert "AMX" not in caplog.text


async def test_a_miscompiled_worker_serves_the_real_model(
    model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(models={"m": ModelConfig(path=model_path, engine=SMALL)})
    command = (sys.executable, "-m", "tests.pool.crashing_worker")
    async with running(ModelPool(config, Spare(command))) as pool:
        worker = await worker_of(pool)
        assert "AMX" in caplog.text and "-fno-tree-dse" in caplog.text
        greedy = SamplingParams(temperature=0)
        generation = worker.submit(GenerateRequest(Text("One, two, three,"), greedy, max_tokens=2))
        assert (await text(generation)).startswith(" four")


# Deaths.


async def test_a_killed_worker_fails_its_requests_and_the_next_one_works(
    open_pool: OpenPool, starts: Starts, no_back_off: None
) -> None:
    del no_back_off
    async with open_pool() as pool:
        worker = await worker_of(pool)
        pid = int(await ask(pool, "pid"))
        generations = [await hang(pool), await hang(pool)]
        assert pool.loads() == {"m": (2, 0)}
        os.kill(pid, signal.SIGKILL)
        for generation in generations:
            with pytest.raises(WorkerDied, match=r"worker of model m died \(signal SIGKILL\)"):
                await anext(aiter(generation))
        assert not worker.alive and pool.loads() == {}
        with pytest.raises(Unavailable, match="not loaded"):
            worker.submit(request())
        assert await ask(pool) == "Hello world"
        assert starts.pids[0] == pid != starts.pids[1]


async def test_a_crash_in_the_middle_of_an_answer(open_pool: OpenPool, no_back_off: None) -> None:
    del no_back_off
    async with open_pool(preload=True) as pool:
        await pool.start()
        generation = (await worker_of(pool)).submit(request("die"))
        assert await first_delta(generation) == "Alas"
        with pytest.raises(WorkerDied, match="SIGABRT"):
            await anext(aiter(generation))
        assert not pool.ready()
        assert await ask(pool) == "Hello world"
        assert pool.ready()


async def test_an_error_that_comes_after_ready_is_a_death_like_others(
    open_pool: OpenPool, starts: Starts, no_back_off: None
) -> None:
    del no_back_off
    problems: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    async with open_pool("shout,serve", load_wait_s=LIMIT_S) as pool:
        while len(starts.lines) < 2:
            await worker_of(pool)
            await asyncio.sleep(0)
        assert await ask(pool) == "Hello world"
    assert problems == []


class Sleeps:
    """Stands in for `asyncio.sleep`: notes how long, and does not."""

    def __init__(self, enough: int):
        self.seconds: list[float] = []
        self.enough = asyncio.Event()
        self._n = enough
        self._sleep: Callable[..., Any] = asyncio.sleep

    async def __call__(self, seconds: float) -> None:
        if len(self.seconds) == self._n:
            self.enough.set()
            await asyncio.Event().wait()
        self.seconds.append(seconds)
        await self._sleep(0)


async def test_restarts_back_off(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch, starts: Starts
) -> None:
    sleeps = Sleeps(4)
    async with open_pool("leave", preload=True) as pool:
        with monkeypatch.context() as patch:
            patch.setattr("server.pool.pool.asyncio.sleep", sleeps)
            await pool.start()
            await sleeps.enough.wait()
    assert sleeps.seconds == list(BACK_OFF_S[:4])
    assert len(starts.lines) == 4


async def test_a_worker_that_did_its_work_starts_the_count_anew(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeps = Sleeps(4)
    async with open_pool() as pool:
        with monkeypatch.context() as patch:
            patch.setattr("server.pool.pool.asyncio.sleep", sleeps)
            for _ in range(4):
                assert await ask(pool) == "Hello world"
                os.kill(int(await ask(pool, "pid")), signal.SIGKILL)
                await (await worker_of(pool)).ended()
    assert sleeps.seconds == [0.0, 0.5, 0.5, 0.5]


async def test_a_request_that_kills_twice_is_refused(
    open_pool: OpenPool, starts: Starts, no_back_off: None
) -> None:
    del no_back_off
    async with open_pool() as pool:
        for _ in range(2):
            with pytest.raises(WorkerDied):
                await ask(pool, "die")
        with pytest.raises(RequestRefused, match="2 times when its worker died"):
            await ask(pool, "die")
        assert await ask(pool) == "Hello world"
        assert len(starts.lines) == 3


async def test_a_success_between_two_deaths_clears(
    open_pool: OpenPool, starts: Starts, no_back_off: None
) -> None:
    del no_back_off
    prompt = "die at 1 3"
    async with open_pool() as pool:
        with pytest.raises(WorkerDied):
            await ask(pool, prompt)
        assert await ask(pool, prompt) == "Alas"
        os.kill(int(await ask(pool, "pid")), signal.SIGKILL)
        await (await worker_of(pool)).ended()
        with pytest.raises(WorkerDied):
            await ask(pool, prompt)
        assert await ask(pool, prompt) == "Alas"
        assert len(starts.lines) == 4


async def test_unloading_accuses_nobody(starts: Starts) -> None:
    suspects = Suspects()
    config = ModelConfig(path=Path("m.gguf"), engine=SMALL)
    async with asyncio.timeout(LIMIT_S):
        for _ in range(3):
            worker = Worker("m", config, suspects, "info")
            await worker.start(Spare(starts.command("serve")))
            generation = worker.submit(request("hang"))
            assert await first_delta(generation) == "Well"
            await worker.close()
            with pytest.raises(Unavailable, match="being unloaded"):
                await anext(aiter(generation))
    suspects.check(request("hang"))


# Requests.


async def test_a_refusal(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        generation = (await worker_of(pool)).submit(request("refuse"))
        with pytest.raises(InvalidRequest, match="no") as caught:
            await generation.accepted()
        assert caught.value.param == "prompt"


async def test_the_counts_of_an_answer(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        generation = (await worker_of(pool)).submit(request())
        assert (await generation.accepted()).n_prompt == 3
        events = [event async for event in generation if not isinstance(event, Echo)]
        assert sum(event.n_tokens for event in events) == 3
        assert isinstance(events[-1], Finished)
        assert pool.loads() == {"m": (0, 0)}


async def test_a_full_queue(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        worker = await worker_of(pool)
        generations = [await hang(pool) for _ in range(3)]
        with pytest.raises(QueueFull) as caught:
            worker.submit(request())
        assert caught.value.message == "model m has 3 open requests, at most 2 run and 1 wait"
        assert caught.value.retry_after
        generations[0].close()
        assert await text(worker.submit(request())) == "Hello world"


async def test_close_cancels_in_the_worker(open_pool: OpenPool) -> None:
    async with open_pool() as pool:
        generation = await hang(pool)
        assert pool.loads() == {"m": (1, 0)}
        generation.close()
        assert await ask(pool, "commands") == "Submit Cancel Submit"
        assert pool.loads() == {"m": (0, 0)}
        # One that has ended is not cancelled.
        ended = (await worker_of(pool)).submit(request())
        await text(ended)
        ended.close()
        assert (await ask(pool, "commands")).count("Cancel") == 1


async def test_a_cancelled_request_is_not_accused(open_pool: OpenPool, no_back_off: None) -> None:
    del no_back_off
    async with open_pool() as pool:
        for _ in range(2):
            (await hang(pool)).close()
            os.kill(int(await ask(pool, "pid")), signal.SIGKILL)
            await (await worker_of(pool)).ended()
        (await hang(pool)).close()


# The end.


async def test_close_ends_the_process_and_fails_open_requests(
    open_pool: OpenPool, starts: Starts
) -> None:
    async with open_pool() as pool:
        generation = await hang(pool)
        worker = await worker_of(pool)
        await pool.close()
        with pytest.raises(Unavailable, match="being unloaded"):
            await anext(aiter(generation))
        assert await worker.ended() == "exit status 0"
        with pytest.raises(Unavailable, match="stopping"):
            await worker_of(pool)
        await pool.close()
    assert not psutil.pid_exists(starts.pids[0])


async def test_a_worker_that_does_not_end_is_killed(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.pool.worker.SHUTDOWN_S", 0.05)
    async with open_pool("stubborn") as pool:
        worker = await worker_of(pool)
        pid = int(await ask(pool, "pid"))
        await pool.close()
        assert await worker.ended() == "signal SIGKILL"
        assert f"worker {pid} did not end; killed" in caplog.text


async def test_close_does_not_wait_for_a_load(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a request that waits for it."""
    monkeypatch.setattr("server.pool.worker.SHUTDOWN_S", 10 * LIMIT_S)
    async with open_pool("slow", load_wait_s=10 * LIMIT_S) as pool:
        waiting = asyncio.create_task(worker_of(pool))
        while not psutil.Process().children():
            await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(Unavailable, match="stopping"):
            await waiting


async def test_close_before_anything_has_started(open_pool: OpenPool, starts: Starts) -> None:
    async with open_pool(preload=True) as pool:
        await pool.start()
        await pool.close()
    assert starts.lines == []


async def test_close_while_a_restart_is_due(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.pool.keeper.BACK_OFF_S", (0.0, 10.0 * LIMIT_S))
    async with open_pool() as pool:
        worker = await worker_of(pool)
        with pytest.raises(WorkerDied):
            await ask(pool, "die")
        await worker.ended()
        waiting = asyncio.create_task(worker_of(pool))
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(Unavailable, match="stopping"):
            await waiting


async def test_nothing_leaks(open_pool: OpenPool, no_back_off: None, no_cool_down: None) -> None:
    del no_back_off, no_cool_down
    me = psutil.Process()
    async with open_pool("serve,serve,fail,serve") as pool:
        await ask(pool)
        n_open = me.num_fds()
        for _ in range(2):
            with pytest.raises(WorkerDied):
                await ask(pool, "die")
            try:
                await ask(pool)
            except CorralError as error:
                assert isinstance(error, ModelLoadError)
                await ask(pool)
        assert me.num_fds() == n_open
    assert me.num_fds() < n_open
