"""Devices of RPC servers: as they are asked for, and what lies on which."""

import socket
import sys
from collections.abc import Iterator

import psutil
import pytest

from server.engine_config import EngineConfig
from server.errors import ModelLoadError
from server.need import MARGIN, Need
from server.pool.devices import Device, Devices, find
from tests.engine.lenders import Lender, lending, needs_rpc

FAR = Device(name="RPC0", server="h:1", number=None, free=1000)
FAR_TOO = Device(name="RPC1", server="h:1", number=None, free=2000)
NEAR = Device(name="CUDA1", server=None, number=1, free=5000)
UNKNOWN = Device(name="CUDA7", server=None, number=7, free=100)
MIXED = Devices((FAR, NEAR, FAR_TOO, UNKNOWN))


@pytest.fixture(scope="module")
def lender() -> Iterator[Lender]:
    with lending(1) as (lender,):
        yield lender


def test_room_and_what_is_taken_of_it() -> None:
    """GPUs of this machine are as the pool has them, others as they said."""
    total = Need(9, (30, 40), frozenset({"h:1"}))
    left = 1 - MARGIN
    assert MIXED.room(total) == total._replace(
        gpus=(int(1000 * left), 40, int(2000 * left), int(100 * left))
    )
    taken = Need(5, (1, 2, 4, 8))
    assert MIXED.ours(taken, 2) == Need(5, (0, 2))
    assert MIXED.lent(taken) == {"h:1": 5}
    assert Devices(()).room(total).gpus == ()


@needs_rpc
async def test_a_real_server(lender: Lender) -> None:
    found = await find(EngineConfig(rpc_servers=(lender.endpoint,)))
    (device,) = found.all
    assert (device.name, device.server, device.number) == ("RPC0", lender.endpoint, None)
    # It lends this machine's memory.
    assert device.free == pytest.approx(psutil.virtual_memory().available, rel=0.5)
    assert not (await find(EngineConfig(rpc_servers=(lender.endpoint,), devices=("none",)))).all
    with pytest.raises(ModelLoadError, match=r"engine.devices: there is no RPC7; there are RPC0"):
        await find(EngineConfig(rpc_servers=(lender.endpoint,), devices=("RPC7",)))


@needs_rpc
async def test_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ModelLoadError) as caught:
        await find(EngineConfig(rpc_servers=(endpoint,)))
    assert caught.value.message == f"engine.rpc_servers: {endpoint}: Connection refused"


async def test_a_process_that_dies_is_the_servers_fault() -> None:
    """llama.cpp aborts over a server that breaks off."""
    dying = (sys.executable, "-c", "import os; os.abort()")
    with pytest.raises(ModelLoadError) as caught:
        await find(EngineConfig(rpc_servers=("h:1", "h:2")), dying)
    expected = "engine.rpc_servers: h:1, h:2: llama.cpp died: signal SIGABRT"
    assert caught.value.message == expected
