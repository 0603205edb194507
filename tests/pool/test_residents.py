"""Models that share too little memory: who is loaded, who waits, who goes."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ByteSize

from server.config import Config, ConfigError, ModelConfig, PoolConfig, ServerConfig
from server.engine_config import EngineConfig
from server.errors import (
    Busy,
    EngineError,
    ModelLoadError,
    ModelNotFound,
    Unavailable,
    WorkerDied,
)
from server.gguf import read_header
from server.need import GPU_BYTES, Need
from server.placement import Placement, least
from server.pool.catalog import Entry
from server.pool.devices import Device, Devices
from server.pool.events import Listener, Reloaded, StateChanged
from server.pool.footprints import Footprint, Footprints
from server.pool.generation import Generation
from server.pool.oracle import Oracle
from server.pool.pool import Lease, ModelPool
from server.pool.spare import Spare
from server.sampling import SamplingParams
from tests.gguf_files import write_gguf
from tests.pool.test_pool import Starts, first_delta, request, running, text

UNIT = 65 * 2**20
"""What one model takes here, once it has been measured; it is estimated to take a little less."""

ENGINE = EngineConfig(
    n_ctx=64, n_slots=2, n_batch=32, n_ubatch=32, n_threads=1, prefix_cache=ByteSize(0)
)


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    return Starts(tmp_path / "starts")


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What each process is found to take."""
    told = {"ram": UNIT}

    def resident_bytes(pid: int) -> int:
        assert pid
        return told["ram"]

    monkeypatch.setattr("server.pool.residents.resident_bytes", resident_bytes)
    return told


GIB = 2**30


class Asked(Oracle):
    """Has no answer but what it is given.

    `more`: bytes of RAM beyond the estimate, by id. `lent`: what RPC servers have free; others do
    not answer. GPUs of this machine go by their numbers, and have less free than the pool.
    """

    def __init__(self) -> None:
        self.asked = ""
        self.met = ""
        self.lent: dict[str, int] = {}
        self.more: dict[str, int] = {}
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def devices(self, entry: Entry) -> Devices:
        self.met += entry.id
        await self.may_answer.wait()
        servers = entry.config.engine.rpc_servers
        for server in servers:
            if server not in self.lent:
                raise ModelLoadError(f"engine.rpc_servers: {server}: Connection refused")
        lent = (
            Device(name=f"RPC{i}", server=server, number=None, free=self.lent[server])
            for i, server in enumerate(servers)
        )
        named = entry.config.engine.devices
        ours = (Device(name=name, server=None, number=int(name[-1]), free=1) for name in named)
        return Devices((*lent, *ours))

    async def beyond(self, entry: Entry, placed: Placement) -> Need:
        assert placed.need.ram
        self.asked += entry.id
        await self.may_answer.wait()
        if entry.id not in self.more:
            raise EngineError("no answer")
        return Need(self.more[entry.id])


class Machine:
    """Files of models, and pools that serve them with the scripted worker."""

    def __init__(self, folder: Path, starts: Starts):
        self.folder = folder
        self.starts = starts
        self.oracle = Asked()
        self.footprints = folder / "footprints.json"

    def model(self, id: str, engine: EngineConfig = ENGINE, **settings: Any) -> ModelConfig:
        path = self.folder / f"{id}.gguf"
        if not path.exists():
            write_gguf(path)
        return ModelConfig(path=path, engine=engine, **settings)

    def config(
        self,
        models: str | dict[str, ModelConfig],
        room: float,
        load_wait_s: float = 60,
        **pool: Any,
    ) -> Config:
        """`models`: ids of a letter each, or how each is run. `room`: for so many of them."""
        if isinstance(models, str):
            models = {id: self.model(id) for id in models}
        settings: dict[str, Any] = {"swap_after_s": 60.0, **pool}
        return Config(
            models=models,
            hf_cache="off",
            server=ServerConfig(load_wait_s=load_wait_s),
            pool=PoolConfig.model_validate({"ram_budget": int(room * UNIT), **settings}),
        )

    @asynccontextmanager
    async def open(self, config: Config, modes: str = "serve") -> AsyncGenerator[ModelPool]:
        footprints = Footprints(self.footprints)
        spare = Spare(self.starts.command(modes))
        pool = ModelPool(config, spare, footprints=footprints, oracle=self.oracle)
        async with running(pool):
            await pool.start()
            yield pool


@pytest.fixture
def machine(tmp_path: Path, starts: Starts) -> Machine:
    return Machine(tmp_path, starts)


async def use(pool: ModelPool, *models: str) -> None:
    """A short request to each, in turn."""
    for model in models:
        lease = await pool.lease(model, pool.config.server.load_wait_s)
        assert await text(lease.worker.submit(request())) == "Hello world"
        lease.release()


async def hang(lease: Lease) -> Generation:
    generation = lease.worker.submit(request("hang"))
    assert await first_delta(generation) == "Well"
    return generation


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def ready(pool: ModelPool) -> str:
    """The ids of those that serve."""
    return "".join(pool.loads())


def state(pool: ModelPool, model: str) -> str:
    return pool.residents[model].state


def pid(pool: ModelPool, model: str) -> int | None:
    return pool.residents[model].pid


async def heard(listener: Listener) -> list[StateChanged | Reloaded]:
    """All that has been told until it is closed."""
    listener.close()
    told: list[StateChanged | Reloaded] = []
    while (event := await listener.next()) is not None:
        told.append(event)
    return told


# Room for some.


async def test_the_least_recently_used_idle_model_gives_way(machine: Machine) -> None:
    async with machine.open(machine.config("abc", 2)) as pool:
        await use(pool, "a", "b", "a")
        first = pid(pool, "a")
        # Both were used within the span of a tie.
        pool.residents["b"].last_used -= 10
        gone = pid(pool, "b")
        await use(pool, "c")
        assert ready(pool) == "ac" and pid(pool, "a") == first
        assert gone is not None and not psutil.pid_exists(gone)
        total, took = pool.budget()
        assert took.ram <= total.ram == 2 * UNIT


async def test_a_busy_model_stays(machine: Machine) -> None:
    async with machine.open(machine.config("abc", 2)) as pool:
        lease = await pool.lease("a")
        generation = await hang(lease)
        lease.release()
        await use(pool, "b", "c")
        assert ready(pool) == "ac"
        generation.close()
        pool.residents["a"].last_used -= 10
        await use(pool, "b")
        assert ready(pool) == "bc"


async def test_a_model_in_use_takes_requests_until_another_has_waited_long_enough(
    machine: Machine,
) -> None:
    async with machine.open(machine.config("ab", 1, swap_after_s=0.1)) as pool:
        order: list[str] = []

        async def served(model: str) -> None:
            lease = await pool.lease(model)
            order.append(model)
            lease.release()

        lease = await pool.lease("a")
        waiting = asyncio.create_task(served("b"))
        await until(lambda: state(pool, "b") == "waiting")
        await served("a")
        await until(lambda: pool.residents["a"].draining)
        assert not pool.usable("a") and ready(pool) == "a"
        late = asyncio.create_task(served("a"))
        await asyncio.sleep(0)
        assert await text(lease.worker.submit(request())) == "Hello world"
        lease.release()
        lease.release()
        await asyncio.gather(waiting, late)
        assert order == ["a", "b", "a"]
        assert ready(pool) == "a" and pool.residents["a"].n_users == 0
    assert len(machine.starts.lines) == 3


async def test_who_waits_in_vain_is_told_when_to_come_again(machine: Machine) -> None:
    config = machine.config("ab", 1, swap_after_s=50.0)
    Footprints(machine.footprints).note("x", Footprint(more=0, load_s=10.0, size=1000))
    size = (machine.model("b").path).stat().st_size
    async with machine.open(config) as pool:
        lease = await pool.lease("a")
        with pytest.raises(Unavailable, match=r"b still waits after 0.05 s for memory") as caught:
            await pool.lease("b", 0.05)
        # By the speed of what was loaded so far, most of it noted above.
        assert caught.value.retry_after is not None
        assert 50 < caught.value.retry_after < 50 + size / 100 + 1
        assert state(pool, "b") == "unloaded" and pool.usable("a")
        lease.release()
    assert len(machine.starts.lines) == 1


async def test_a_slow_load_tells_what_is_left_of_it(machine: Machine) -> None:
    config = machine.config("a", 1)
    size = machine.model("a").path.stat().st_size
    Footprints(machine.footprints).note("x", Footprint(more=0, load_s=80.0, size=size))
    async with machine.open(config, "slow") as pool:
        waiting = asyncio.create_task(pool.lease("a"))
        await until(lambda: pool.progress("a") == 0.25)
        with pytest.raises(Unavailable, match=r"still loading after 0.01 s \(25%\)") as caught:
            await pool.lease("a", 0.01)
        assert caught.value.retry_after == pytest.approx(60.0)
        waiting.cancel()


async def test_clients_that_leave_take_their_model_out_of_the_queue(machine: Machine) -> None:
    async with machine.open(machine.config("ab", 1, swap_after_s=0.0)) as pool:
        lease = await pool.lease("a")
        waiting = [asyncio.create_task(pool.lease("b")) for _ in range(2)]
        await until(lambda: pool.residents["a"].draining)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        assert state(pool, "b") == "waiting"
        waiting[1].cancel()
        await asyncio.wait(waiting)
        await until(lambda: pool.usable("a"))
        lease.release()
        await use(pool, "a")
        assert state(pool, "b") == "unloaded"
    assert len(machine.starts.lines) == 1


async def test_two_that_wait_for_the_same_room_have_it_in_turn(machine: Machine) -> None:
    async with machine.open(machine.config("abc", 1, swap_after_s=0.0)) as pool:
        lease = await pool.lease("a")
        order: list[str] = []

        async def served(model: str) -> None:
            got = await pool.lease(model)
            order.append(model)
            assert ready(pool) == model
            got.release()

        tasks: list[asyncio.Task[None]] = []
        for model in "cb":
            tasks.append(asyncio.create_task(served(model)))
            await until(lambda model=model: state(pool, model) == "waiting")
        await until(lambda: pool.residents["a"].draining)
        lease.release()
        await asyncio.gather(*tasks)
        assert order == ["c", "b"]


async def test_a_model_that_has_just_been_loaded_is_not_taken_from_those_who_waited(
    machine: Machine,
) -> None:
    async with machine.open(machine.config("a", 1)) as pool:
        resident = pool.residents["a"]
        await use(pool, "a")
        assert not resident.busy
        resident.n_waiters = 1
        assert resident.busy
        resident.draining = True
        assert not resident.busy
        resident.n_waiters = 0


async def test_a_worker_that_dies_while_it_is_drained_frees_its_room(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.pool.keeper.BACK_OFF_S", (0.0, 60.0))
    async with machine.open(machine.config("ab", 1, swap_after_s=0.0)) as pool:
        lease = await pool.lease("a")
        generation = await hang(lease)
        waiting = asyncio.create_task(pool.lease("b"))
        await until(lambda: pool.residents["a"].draining)
        number = pid(pool, "a")
        assert number is not None
        os.kill(number, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await anext(aiter(generation))
        lease.release()
        (await waiting).release()
        await use(pool, "a")


# What never fits.


async def test_pinned_models_stay_and_others_are_refused_with_the_numbers(
    machine: Machine,
) -> None:
    models = {"a": machine.model("a", pinned=True), "b": machine.model("b")}
    async with machine.open(machine.config(models, 1.5)) as pool:
        await use(pool, "a")
        with pytest.raises(Unavailable) as caught:
            await use(pool, "b")
        message = "model b needs 0.06 GiB of RAM, all models may take 0.10 GiB of RAM, of which a, "
        assert caught.value.message == f"{message}pinned, leave 0.03 GiB of RAM"
        pool.pin("a", False)
        await use(pool, "b")
        pool.pin("b", True)
        with pytest.raises(Unavailable, match="of which b, pinned"):
            await use(pool, "a")
        assert ready(pool) == "b"


async def test_a_model_larger_than_all_memory(machine: Machine) -> None:
    async with machine.open(machine.config("a", 0.5)) as pool:
        with pytest.raises(Unavailable, match=r"0.06 GiB .* 0.03 GiB of RAM; pool.ram_budget"):
            await use(pool, "a")
        await pool.reload(machine.config("a", 1))
        await use(pool, "a")


SERVER = "127.0.0.1:50052"


async def test_models_that_name_the_same_rpc_server_take_turns(machine: Machine) -> None:
    """It has one client at a time, and the next one would hang in llama.cpp."""
    lent = ENGINE.model_copy(update={"rpc_servers": (SERVER,)})
    others = ENGINE.model_copy(update={"rpc_servers": ("127.0.0.1:1",)})
    models = {id: machine.model(id, lent) for id in "ab"}
    models |= {"c": machine.model("c", others), "d": machine.model("d")}
    machine.oracle.lent = {SERVER: GIB, "127.0.0.1:1": GIB}
    async with machine.open(machine.config(models, 9, swap_after_s=0.2)) as pool:
        await use(pool, "a", "c", "d", "b")
        assert ready(pool) == "bcd"
        lease = await pool.lease("b")
        with pytest.raises(Unavailable) as caught:
            await pool.lease("a", 0.05)
        waits_for = f"the RPC server {SERVER}, which b uses"
        assert caught.value.message == f"model a still waits after 0.05 s for {waits_for}"
        waiting = asyncio.create_task(pool.lease("a"))
        await until(lambda: pool.residents["b"].draining)
        lease.release()
        (await waiting).release()
        assert ready(pool) == "acd"
        pool.pin("a", True)
        with pytest.raises(Unavailable) as caught:
            await use(pool, "b")
        assert f"and the RPC server {SERVER}, all models may take" in caught.value.message
        assert "of which a, pinned, leave" in caught.value.message
    assert machine.oracle.met == "ac", "what a server has said counts for a while, for all"


async def test_what_lies_with_an_rpc_server_is_not_counted_here(machine: Machine) -> None:
    """The worker itself stays, its layers, cells and buffers go."""
    lent = ENGINE.model_copy(update={"rpc_servers": (SERVER,), "n_ctx": 65536, "n_batch": 512})
    header = read_header(machine.model("a").path)
    whole = least(header, lent, Need(2**40)).need.ram
    machine.oracle.lent = {SERVER: 9 * GIB}
    async with machine.open(machine.config({"a": machine.model("a", lent)}, 1.2)) as pool:
        total, _ = pool.budget()
        assert whole > 1.2 * total.ram
        await use(pool, "a")
        claim = pool.residents["a"].claim
        assert claim is not None and claim.need.gpus == ()
        assert claim.estimated < total.ram
        assert claim.lent[SERVER] > GPU_BYTES
        assert claim.config.engine.n_gpu_layers == "auto", "the worker knows best what is free"


@pytest.mark.parametrize(
    ("devices", "used", "asked"),
    [((), (True, True), ""), (("CUDA1",), (False, True), "a"), (("none",), (False, False), "")],
)
async def test_a_model_takes_of_the_gpus_that_it_names(
    machine: Machine, devices: tuple[str, ...], used: tuple[bool, ...], asked: str
) -> None:
    engine = ENGINE.model_copy(update={"devices": devices, "n_gpu_layers": "all"})
    gpus = (2 * GIB, 2 * GIB)
    config = machine.config({"a": machine.model("a", engine)}, 9, gpu_budget=gpus)
    async with machine.open(config) as pool:
        await use(pool, "a")
        claim = pool.residents["a"].claim
        assert claim is not None
        taken = (*claim.need.gpus, 0, 0)
        assert tuple(n_bytes > 0 for n_bytes in taken[:2]) == used
        assert claim.config.engine.devices == devices
    assert machine.oracle.met == asked


async def test_an_rpc_server_that_does_not_answer(machine: Machine) -> None:
    lent = ENGINE.model_copy(update={"rpc_servers": (SERVER,)})
    models = {"a": machine.model("a", lent), "b": machine.model("b", lent)}
    async with machine.open(machine.config(models, 9)) as pool:
        for _ in range(2):
            with pytest.raises(ModelLoadError) as caught:
                await use(pool, "a")
            assert caught.value.message == f"engine.rpc_servers: {SERVER}: Connection refused"
        assert machine.oracle.met == "a" and state(pool, "a") == "failed", "it cools down"
        machine.oracle.lent = {SERVER: GIB}
        await use(pool, "b")
    assert len(machine.starts.lines) == 1


async def test_a_server_is_asked_by_one_at_a_time_and_by_nobody_while_it_is_used(
    machine: Machine,
) -> None:
    """A second client would hang."""
    other = "127.0.0.1:2"
    one = ENGINE.model_copy(update={"rpc_servers": (SERVER,)})
    two = ENGINE.model_copy(update={"rpc_servers": (other, SERVER)})
    models = {"a": machine.model("a", one), "b": machine.model("b", two), "c": machine.model("c")}
    machine.oracle.lent = {SERVER: GIB, other: GIB}
    machine.oracle.may_answer.clear()
    async with machine.open(machine.config(models, 9, swap_after_s=0.0)) as pool:
        tasks = [asyncio.create_task(use(pool, "a"))]
        await until(lambda: machine.oracle.met == "a")
        tasks.append(asyncio.create_task(use(pool, "b")))
        await use(pool, "c")
        assert machine.oracle.met == "a"
        machine.oracle.may_answer.set()
        await asyncio.gather(*tasks)
    assert machine.oracle.met == "ab"


async def test_two_spellings_of_one_server(machine: Machine) -> None:
    spellings = ("localhost:50052", "127.0.0.1:50052")
    models = {
        id: machine.model(id, ENGINE.model_copy(update={"rpc_servers": (spelling,)}))
        for id, spelling in zip("ab", spellings, strict=True)
    }
    machine.oracle.lent = dict.fromkeys(spellings, GIB)
    async with machine.open(machine.config(models, 9)) as pool:
        await use(pool, "a", "b")
        assert ready(pool) == "b"


# What the estimate does not tell.


def estimated(machine: Machine, id: str = "a") -> int:
    """Bytes that a model is thought to need at the least."""
    header = read_header(machine.model(id).path)
    return least(header, ENGINE, Need(2**40)).need.ram


async def test_what_llama_says_decides_where_the_estimate_is_near_the_edge(
    machine: Machine, taken: dict[str, int]
) -> None:
    """The same budget, a little less than the estimate."""
    taken["ram"] = estimated(machine) * 9 // 10
    units = 0.95 * estimated(machine) / UNIT
    async with machine.open(machine.config("a", units)) as pool:
        with pytest.raises(Unavailable, match="model a needs"):
            await use(pool, "a")
        with pytest.raises(Unavailable, match="model a needs"):
            await use(pool, "a")
    assert machine.oracle.asked == "a", "one failure is enough"
    assert machine.starts.lines == []
    machine.oracle.more["a"] = -(estimated(machine) // 10)
    async with machine.open(machine.config("a", units)) as pool:
        await use(pool, "a")
        await pool.unload("a")
        await use(pool, "a")
    assert machine.oracle.asked == "aa", "what was measured needs no answer"


async def test_what_llama_said_is_remembered(machine: Machine) -> None:
    """Of a model that then does not fit, too."""
    units = 1.05 * estimated(machine) / UNIT
    machine.oracle.more["a"] = estimated(machine) // 10
    for _ in range(2):
        async with machine.open(machine.config("a", units)) as pool:
            with pytest.raises(Unavailable, match="model a needs"):
                await use(pool, "a")
    assert machine.oracle.asked == "a"


async def test_nobody_is_evicted_for_what_llama_does_not_want(machine: Machine) -> None:
    """Beside b there is a little less than the estimate."""
    machine.oracle.more["a"] = -(estimated(machine) // 10)
    units = (UNIT + 0.95 * estimated(machine)) / UNIT
    async with machine.open(machine.config("ab", units)) as pool:
        await use(pool, "b", "a")
        assert sorted(ready(pool)) == ["a", "b"]
    assert machine.oracle.asked == "a"


@pytest.mark.parametrize("room", [1.5, 9])
async def test_where_the_answer_is_clear_llama_is_not_asked(machine: Machine, room: float) -> None:
    """The usual swap, and room for all: neither when nothing is known nor when everything is."""
    async with machine.open(machine.config("ab", room)) as pool:
        await use(pool, "a", "b", "a", "b")
    assert machine.oracle.asked == ""


async def test_others_go_on_while_llama_is_asked(machine: Machine) -> None:
    machine.oracle.may_answer.clear()
    machine.oracle.more["a"] = 0
    units = (UNIT + estimated(machine)) / UNIT
    models = {"a": machine.model("a"), "b": machine.model("b"), "c": machine.model("c")}
    async with machine.open(machine.config(models, units, swap_after_s=0.0)) as pool:
        await use(pool, "b")
        waiting = asyncio.create_task(use(pool, "a"))
        await until(lambda: machine.oracle.asked == "a")
        assert state(pool, "a") == "waiting" and ready(pool) == "b"
        await use(pool, "b")
        machine.oracle.may_answer.set()
        await waiting
        assert sorted(ready(pool)) == ["a", "b"]


async def test_a_pool_that_closes_does_not_wait_for_answers(machine: Machine) -> None:
    machine.oracle.may_answer.clear()
    async with machine.open(machine.config("a", estimated(machine) / UNIT)) as pool:
        waiting = asyncio.create_task(pool.lease("a"))
        await until(lambda: machine.oracle.asked == "a")
        closing = asyncio.create_task(pool.close())
        with pytest.raises(Unavailable, match="stopping"):
            await waiting
        await closing


async def test_preloads_take_no_room_from_each_other(machine: Machine) -> None:
    models = {id: machine.model(id, preload=True) for id in "abc"}
    async with machine.open(machine.config(models, 2)) as pool:
        await until(lambda: ready(pool) == "ab" and state(pool, "c") == "failed")
        error = pool.residents["c"].error
        assert error is not None and "it is preloaded beside" in error.message
        assert not pool.ready()
        await use(pool, "c")
        assert pool.ready()


async def test_what_is_loaded_together_shares_what_is_free(machine: Machine) -> None:
    """Each would gladly keep more prefixes, but not in the room that the other must have."""
    engine = ENGINE.model_copy(update={"prefix_cache": 512 * 2**20})
    models = {id: machine.model(id, engine, preload=True) for id in "ab"}
    async with machine.open(machine.config(models, 2.5)) as pool:
        await until(lambda: ready(pool) == "ab")
        total, took = pool.budget()
        assert took.ram <= total.ram


# Idleness.


@pytest.mark.parametrize(
    ("own", "everywhere", "keep_alive_s", "goes"),
    [
        (None, 0.05, None, True),
        (0.05, 0.0, None, True),
        (0.0, 0.05, None, False),
        (None, 0.0, None, False),
        (None, 0.0, 0.0, True),
        (None, 0.0, 0.05, True),
        (0.05, 0.05, -1.0, False),
        (0.05, 0.05, 60.0, False),
    ],
)
async def test_idle_models_go(
    machine: Machine, own: float | None, everywhere: float, keep_alive_s: float | None, goes: bool
) -> None:
    models = {"a": machine.model("a", idle_unload_s=own)}
    async with machine.open(machine.config(models, 1, idle_unload_s=everywhere)) as pool:
        lease = await pool.lease("a", keep_alive_s=keep_alive_s)
        generation = await hang(lease)
        lease.release()
        assert pool.residents["a"].idle_timer is None
        generation.close()
        if goes:
            await until(lambda: state(pool, "a") == "unloaded")
        else:
            timer = pool.residents["a"].idle_timer
            assert timer is None or timer.when() > asyncio.get_running_loop().time() + 50


async def test_the_last_request_says_how_long_and_pinned_ones_stay(machine: Machine) -> None:
    async with machine.open(machine.config("a", 1)) as pool:
        pool.pin("a", True)
        (await pool.lease("a", keep_alive_s=0.0)).release()
        assert pool.residents["a"].idle_timer is None
        pool.pin("a", False)
        assert pool.residents["a"].idle_timer is not None
        (await pool.lease("a", keep_alive_s=-1.0)).release()
        assert pool.residents["a"].idle_timer is None and ready(pool) == "a"


# By hand.


async def test_unloading_spares_requests_but_by_force(machine: Machine) -> None:
    async with machine.open(machine.config("a", 1)) as pool:
        assert not await pool.unload("a")
        lease = await pool.lease("a")
        generation = await hang(lease)
        number = pid(pool, "a")
        with pytest.raises(Busy, match="model a is in use; force ends its requests"):
            await pool.unload("a")
        assert pool.usable("a")
        assert await pool.unload("a", force=True)
        with pytest.raises(Unavailable, match="being unloaded"):
            await anext(aiter(generation))
        assert number is not None and not psutil.pid_exists(number)
        assert state(pool, "a") == "unloaded" and pool.budget()[1].ram == 0
        lease.release()
        with pytest.raises(ModelNotFound):
            await pool.unload("z")
        await use(pool, "a")
        assert await pool.unload("a")


async def test_who_waits_for_a_load_learns_that_it_was_ended(machine: Machine) -> None:
    async with machine.open(machine.config("a", 1), "slow") as pool:
        waiting = asyncio.create_task(pool.lease("a"))
        await until(lambda: state(pool, "a") == "loading")
        assert await pool.unload("a", force=True)
        with pytest.raises(Unavailable, match="model a was unloaded"):
            await waiting
        assert state(pool, "a") == "failed"
        assert len(machine.starts.lines) <= 1


async def test_close_during_an_unload(machine: Machine) -> None:
    async with machine.open(machine.config("a", 1)) as pool:
        await use(pool, "a")
        unloading = asyncio.create_task(pool.unload("a"))
        await until(lambda: state(pool, "a") == "unloading")
        await pool.close()
        assert await unloading


async def test_what_happens_is_told_in_order(machine: Machine) -> None:
    async with machine.open(machine.config("ab", 1), "serve,fail") as pool:
        listener = pool.events.listen()
        await use(pool, "a")
        with pytest.raises(Exception, match="bad magic"):
            await use(pool, "b")
        told = [
            (event.model, event.state, event.progress, event.reason)
            for event in await heard(listener)
            if isinstance(event, StateChanged)
        ]
    known = dict.fromkeys(told)
    assert list(known) == told, "something was told twice"
    assert told == [
        ("a", "waiting", None, None),
        ("a", "loading", 0.0, None),
        ("a", "loading", 0.5, None),
        ("a", "loading", 1.0, None),
        ("a", "ready", None, None),
        ("b", "waiting", None, None),
        ("a", "unloading", None, "to make room for b"),
        ("a", "unloaded", None, None),
        ("b", "loading", 0.0, None),
        ("b", "failed", None, f"cannot load {machine.folder / 'b.gguf'}: bad magic"),
    ]


# Another configuration.


async def test_a_reload_leaves_alone_what_is_as_it_was(machine: Machine) -> None:
    before = machine.config("abc", 4)
    async with machine.open(before) as pool:
        await use(pool, "a", "b", "c")
        pids = [pid(pool, id) for id in "abc"]
        pool.pin("a", True)
        busy = await pool.lease("b")
        generation = await hang(busy)
        changed = ENGINE.model_copy(update={"n_ctx": 32})
        models = {
            "a": machine.model("a"), "b": machine.model("b", changed), "d": machine.model("d")
        }  # fmt: skip
        after = machine.config(models, 4).model_copy(
            update={"server": before.server.model_copy(update={"port": 1})}
        )
        told = await pool.reload(after)
        assert (told.added, told.changed, told.removed) == (("d",), ("b",), ("c",))
        assert told.restart_needed == ("server.port",)
        assert pool.config is after and list(pool.models) == ["a", "b", "d"]
        with pytest.raises(ModelNotFound):
            await pool.lease("c")
        await until(lambda: "c" not in pool.residents)
        await use(pool, "a", "d")
        assert pid(pool, "a") == pids[0] and pool.residents["a"].pinned
        # The one that is busy goes on until it is done, and takes nothing new.
        assert pid(pool, "b") == pids[1] and not pool.usable("b")
        waiting = asyncio.create_task(pool.lease("b"))
        await asyncio.sleep(0)
        assert not waiting.done()
        generation.close()
        busy.release()
        lease = await waiting
        assert pid(pool, "b") != pids[1] and lease.worker.config.engine.n_ctx == 32
        lease.release()


async def test_a_file_with_other_weights_is_another_model(machine: Machine) -> None:
    """Its header may say the same, and one that was damaged may be whole by now."""
    async with machine.open(machine.config("ab", 2), "serve,fail,serve,serve") as pool:
        await use(pool, "a")
        with pytest.raises(ModelLoadError):
            await use(pool, "b")
        assert (await pool.reload(machine.config("ab", 2))).changed == ()
        number = pid(pool, "a")
        for id in "ab":
            path = machine.model(id).path
            whole = bytearray(path.read_bytes())
            whole[-1] ^= 1
            path.write_bytes(whole)
        assert (await pool.reload(machine.config("ab", 2))).changed == ("a", "b")
        await use(pool, "b", "a")
        assert pid(pool, "a") != number


async def test_what_needs_no_restart_holds_at_once(machine: Machine) -> None:
    async with machine.open(machine.config({"a": machine.model("a")}, 2)) as pool:
        await use(pool, "a")
        number = pid(pool, "a")
        sampling = SamplingParams(temperature=0.25)
        changed = machine.model("a", sampling=sampling, aliases=("other",), pinned=True)
        told = await pool.reload(machine.config({"a": changed}, 2))
        assert told.changed == ()
        lease = await pool.lease("other")
        assert lease.worker.config.sampling == sampling
        assert pool.residents["a"].pinned and pid(pool, "a") == number
        lease.release()


async def test_a_reload_may_preload(machine: Machine) -> None:
    async with machine.open(machine.config("a", 2)) as pool:
        models = {"a": machine.model("a"), "b": machine.model("b", preload=True)}
        await pool.reload(machine.config(models, 2))
        assert not pool.ready()
        await until(lambda: state(pool, "b") == "ready")
        assert pool.ready()


async def test_a_reload_that_fails_changes_nothing(machine: Machine) -> None:
    config = machine.config("a", 2)
    async with machine.open(config) as pool:
        await use(pool, "a")
        number, listener = pid(pool, "a"), pool.events.listen()
        with pytest.raises(ConfigError, match="default_model: the model 'z' does not exist"):
            await pool.reload(machine.config("b", 2).model_copy(update={"default_model": "z"}))
        assert pool.config is config and list(pool.models) == ["a"]
        await use(pool, "a")
        assert pid(pool, "a") == number and await heard(listener) == []


async def test_a_model_that_is_removed_while_somebody_waits_for_it(machine: Machine) -> None:
    async with machine.open(machine.config("ab", 1)) as pool:
        lease = await pool.lease("a")
        waiting = asyncio.create_task(pool.lease("b"))
        await until(lambda: state(pool, "b") == "waiting")
        await pool.reload(machine.config("a", 1))
        with pytest.raises(Unavailable, match="model b was removed from the configuration"):
            await waiting
        assert list(pool.residents) == ["a"]
        lease.release()


async def test_a_lease_of_a_removed_model_does_not_touch_its_successor(machine: Machine) -> None:
    async with machine.open(machine.config("ab", 2)) as pool:
        lease = await pool.lease("a")
        await pool.reload(machine.config("b", 2))
        resident = pool.residents["a"]
        assert resident.keeper is not None
        await resident.keeper.close()
        await pool.reload(machine.config("ab", 2))
        await use(pool, "a")
        lease.release()
        assert pool.residents["a"] is not resident
        assert ready(pool) == "a" and pool.budget()[1].ram > 0


async def test_a_removed_model_that_comes_back_in_time_stays(machine: Machine) -> None:
    async with machine.open(machine.config("ab", 2)) as pool:
        lease = await pool.lease("a")
        number = pid(pool, "a")
        await pool.reload(machine.config("b", 2))
        await pool.reload(machine.config("ab", 2))
        lease.release()
        await use(pool, "a")
        assert pid(pool, "a") == number and list(pool.residents) == ["a", "b"]


# What was measured.


async def test_what_a_model_really_takes_is_known_to_the_next_run(
    machine: Machine, taken: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    taken["ram"] = 3 * UNIT
    async with machine.open(machine.config("a", 2)) as pool:
        with caplog.at_level(logging.INFO):
            await use(pool, "a")
        # It runs, more than it was given, and there is no room beside it.
        assert pool.budget()[1].ram == 3 * UNIT
    assert "takes 195 MiB, estimated 64" in caplog.text
    async with machine.open(machine.config("a", 2)) as pool:
        with pytest.raises(Unavailable, match=r"needs 0.19 GiB"):
            await use(pool, "a")
    async with machine.open(machine.config("a", 4)) as pool:
        await use(pool, "a")
        assert pool.budget()[1].ram == 3 * UNIT


async def test_what_a_running_model_really_takes_counts(
    machine: Machine, taken: dict[str, int]
) -> None:
    async with machine.open(machine.config("ab", 2.5)) as pool:
        taken["ram"] = 2 * UNIT
        await use(pool, "a", "b")
        assert ready(pool) == "b"
        await pool.unload("b")
    machine.footprints.unlink()
    async with machine.open(machine.config("abc", 2.4)) as pool:
        # Less than was estimated: a third fits.
        taken["ram"] = UNIT // 2
        await use(pool, "a", "b", "c")
        assert ready(pool) == "abc" and pool.budget()[1].ram == 3 * (UNIT // 2)


async def test_a_worker_that_starts_again_is_measured_against_the_same_estimate(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.pool.keeper.BACK_OFF_S", (0.0,))
    async with machine.open(machine.config("a", 4)) as pool:
        for _ in range(3):
            await use(pool, "a")
            lease = await pool.lease("a")
            os.kill(lease.worker.pid or 0, signal.SIGKILL)
            await lease.worker.ended()
            lease.release()
        await use(pool, "a")
        await pool.unload("a")
        await use(pool, "a")
        assert pool.budget()[1].ram == UNIT


# Threads.


async def threads(pool: ModelPool, model: str) -> int:
    # The cores are shared out once what happens now has happened.
    await asyncio.sleep(0.01)
    lease = await pool.lease(model)
    told = int(await text(lease.worker.submit(request("threads"))))
    lease.release()
    return told


async def test_busy_models_share_the_cores(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.pool.residents.cores", lambda: 8)
    free = ENGINE.model_copy(update={"n_threads": None})
    fixed = ENGINE.model_copy(update={"n_threads": 3})
    models = {"a": machine.model("a", free), "b": machine.model("b", free)}
    async with machine.open(machine.config({**models, "c": machine.model("c", fixed)}, 3)) as pool:
        assert await threads(pool, "a") == 8
        lease = await pool.lease("a")
        generation = await hang(lease)
        await use(pool, "b")
        assert await threads(pool, "a") == 8
        other = await pool.lease("b")
        assert (await threads(pool, "a"), await threads(pool, "b")) == (4, 4)
        third = await pool.lease("c")
        assert [await threads(pool, id) for id in "abc"] == [2, 2, 3]
        third.release()
        other.release()
        assert await threads(pool, "a") == 8
        generation.close()
        lease.release()


# The real worker.


async def test_unloading_gives_all_memory_back(model_path: Path) -> None:
    engine = EngineConfig(n_ctx=256, n_slots=1, n_threads=1)
    config = Config(models={"m": ModelConfig(path=model_path, engine=engine)}, hf_cache="off")

    def taken_by_children() -> int:
        children = psutil.Process().children()
        return sum(child.memory_info().rss for child in children)

    async with running(ModelPool(config, footprints=Footprints(None))) as pool:
        assert taken_by_children() == 0
        (await pool.lease("m")).release()
        assert taken_by_children() > model_path.stat().st_size // 2
        assert await pool.unload("m")
        assert taken_by_children() == 0
