"""Devices by name: which of them a model gets, what it holds there, and what is refused."""

from collections.abc import Iterator
from typing import Any

import pytest

from server.engine import llama
from server.engine.llama import Device, Devices, Log, backend, devices, rpc
from server.engine.llama.devices import ACCEL, CPU, GPU, IGPU, all_devices, choose
from server.engine_config import EngineConfig
from server.errors import ModelLoadError


@pytest.fixture(scope="module", autouse=True)
def _initialised() -> Iterator[Log]:
    yield llama.backend_init()
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


def device(name: str, kind: int = GPU, library: str = "CUDA", **more: Any) -> Device:
    given: dict[str, Any] = {"free": 10, "total": 20, "buffer_type": name, **more}
    return Device(name, f"the {name}", kind, library, **given)


PROCESSOR = device("CPU", CPU, "CPU", pointer=1, buffer_type_pointer=11)
CUDA0, CUDA1 = device("CUDA0", pointer=2, free=7, buffer_type_pointer=12), device("CUDA1")
REMOTE = device("RPC0", library="RPC", buffer_type="RPC0[a:1]", pointer=3, buffer_type_pointer=13)
INTEGRATED, OTHER = device("I0", IGPU, "Vulkan"), device("S0", IGPU, "SYCL")


def names(found: list[Device]) -> list[str]:
    return [one.name for one in found]


def test_this_machine() -> None:
    processor = next(one for one in all_devices() if one.kind == CPU)
    assert (processor.name, processor.library, processor.buffer_type) == ("CPU", "CPU", "CPU")
    assert 0 < processor.free <= processor.total
    assert processor.description and processor.pointer and processor.buffer_type_pointer
    assert all(free > 0 for free in llama.gpu_memory())


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ([PROCESSOR], []),
        ([device("BLAS", ACCEL), PROCESSOR], []),
        ([CUDA0, CUDA1, PROCESSOR], ["CUDA0", "CUDA1"]),
        ([CUDA0, INTEGRATED, PROCESSOR, REMOTE], ["RPC0", "CUDA0"]),
        ([INTEGRATED, OTHER, PROCESSOR, REMOTE], ["RPC0", "I0"]),
        # One device, driven by two parts of ggml: the first one's.
        ([device("A", id="0:1"), device("B", id="0:1"), CUDA1], ["A", "CUDA1"]),
    ],
)
def test_the_devices_that_llama_cpp_takes(found: list[Device], chosen: list[str]) -> None:
    assert names(choose((), found)) == chosen


def test_devices_by_name() -> None:
    found = [CUDA0, CUDA1, INTEGRATED, PROCESSOR, REMOTE]
    assert names(choose(("CUDA1", "RPC0"), found)) == ["CUDA1", "RPC0"]
    assert choose(("none",), found) == []
    with pytest.raises(ModelLoadError) as caught:
        choose(("CUDA1", "CUDA2"), found[:2])
    assert caught.value.message == (
        "engine.devices: there is no CUDA2; there are CUDA0 (the CUDA0), CUDA1 (the CUDA1)"
    )
    with pytest.raises(ModelLoadError, match=r"no CPU; .* finds nothing but the CPU"):
        choose(("CPU",), [PROCESSOR])


def opened(monkeypatch: pytest.MonkeyPatch, *found: Device, **settings: Any) -> Devices:
    monkeypatch.setattr(devices, "all_devices", lambda: [*found])
    with Devices(EngineConfig(**settings)) as result:
        return result


def test_what_a_model_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    given = opened(monkeypatch, CUDA0, PROCESSOR, REMOTE)
    assert given.free == [10, 7]
    assert list(given.pointers) == [3, 2, None]
    assert next(iter(given.buffer_types)) == "CPU"
    assert given.buffer_types == {"CPU": 11, "RPC0": 13, "RPC0[a:1]": 13, "CUDA0": 12}
    alone = opened(monkeypatch, CUDA0, PROCESSOR, REMOTE, devices=("none",))
    assert (alone.free, list(alone.pointers), list(alone.buffer_types)) == ([], [None], ["CPU"])


def test_a_share_for_each_device_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    split = (1.0, 2.0, 3.0)
    with pytest.raises(ModelLoadError, match=r"tensor_split has 3 shares; there are RPC0 .*CUDA0"):
        opened(monkeypatch, CUDA0, PROCESSOR, REMOTE, tensor_split=split)
    assert opened(monkeypatch, PROCESSOR, tensor_split=split).chosen == []


def test_a_buffer_type_that_no_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = ("x=CUDA0", "y=CUDA1")
    with pytest.raises(
        ModelLoadError,
        match=r"^engine.override_tensors: 'y=CUDA1': there is no buffer type CUDA1; there are CPU,",
    ):
        opened(monkeypatch, CUDA0, PROCESSOR, override_tensors=pairs)
    with pytest.raises(ModelLoadError, match="'x=CUDA0': there is no buffer type CUDA0"):
        opened(monkeypatch, CUDA0, PROCESSOR, override_tensors=pairs, devices=("none",))


def test_memory_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    nearly = device("CUDA10")
    given = opened(monkeypatch, CUDA0, CUDA1, nearly, PROCESSOR, REMOTE)
    buffers = {
        "CUDA1": 1,
        "CUDA10": 2,
        "CUDA_Host": 4,
        "CPU_Mapped": 8,
        "AMX": 16,
        "RPC0[a:1]": 32,
        "CPU": 64,
        "CUDA0_Split": 128,
    }
    assert given.memory(buffers) == (
        ("CPU", 4 + 8 + 16 + 64),
        ("RPC0", 32),
        ("CUDA0", 0),
        ("CUDA1", 1),
        ("CUDA10", 2),
        ("CUDA0_Split", 128),
    )


def test_free_memory_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "all_devices", lambda: [CUDA0, INTEGRATED, PROCESSOR])
    assert llama.gpu_memory() == [7]


@pytest.mark.parametrize(
    ("wanted", "found", "lent"),
    [
        ((), [CUDA0, PROCESSOR], [2]),
        ((), [PROCESSOR], [1]),
        (("CPU", "CUDA0"), [CUDA0, PROCESSOR], [1, 2]),
    ],
)
def test_what_is_lent(
    wanted: tuple[str, ...], found: list[Device], lent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def serve(*arguments: Any) -> None:
        seen.append(arguments)

    monkeypatch.setattr(devices, "all_devices", lambda: found)
    monkeypatch.setattr(rpc, "serve", serve)
    llama.lend("host:1", wanted, 3, "folder")
    assert seen == [("host:1", lent, 3, "folder")]


def test_what_cannot_be_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "all_devices", lambda: [PROCESSOR])
    with pytest.raises(ModelLoadError, match=r"no device CUDA0; there are CPU \(the CPU\)"):
        llama.lend("host:1", ("CUDA0",), 1, None)
