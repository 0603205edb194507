"""The devices that llama.cpp can compute on, and which of them a model gets."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import ctypes
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

from server.engine.llama import rpc
from server.engine.llama.ggml import ggml
from server.engine.llama.overrides import overrides
from server.engine_config import EngineConfig
from server.errors import ModelLoadError

CPU, GPU, IGPU, ACCEL = range(4)
"""ggml_backend_dev_type. An ACCEL computes on what is in RAM."""


class _Props(ctypes.Structure):
    """ggml_backend_dev_props."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("caps", ctypes.c_bool * 5),
    )


class Device(NamedTuple):
    """One device, and what it has free now. `free` and `total` in bytes."""

    name: str
    description: str
    """Of an RPC device, its host:port."""
    kind: int
    library: str
    """The part of ggml that drives it: CUDA, Vulkan, RPC, ..."""
    free: int
    total: int
    buffer_type: str
    id: str | None = None
    """Its place on the bus; two parts of ggml may drive the same device."""
    pointer: int = 0
    buffer_type_pointer: int = 0


def all_devices() -> list[Device]:
    """Every device, the CPU among them. Asks the RPC servers that are registered."""
    return [_device(ggml.ggml_backend_dev_get(i)) for i in range(ggml.ggml_backend_dev_count())]


def _device(pointer: int) -> Device:
    props = _Props()
    ggml.ggml_backend_dev_get_props(pointer, ctypes.byref(props))
    library = ggml.ggml_backend_reg_name(ggml.ggml_backend_dev_backend_reg(pointer))
    buffer_type = ggml.ggml_backend_dev_buffer_type(pointer)
    return Device(
        name=props.name.decode(),
        description=props.description.decode(errors="replace"),
        kind=props.type,
        library=library.decode(),
        free=props.memory_free,
        total=props.memory_total,
        buffer_type=ggml.ggml_backend_buft_name(buffer_type).decode(),
        id=props.device_id.decode() if props.device_id else None,
        pointer=pointer,
        buffer_type_pointer=buffer_type,
    )


def choose(names: tuple[str, ...], found: Iterable[Device]) -> list[Device]:
    """The devices to offload to: as named, else those that llama.cpp takes, in its order.

    These are RPC servers, GPUs, and integrated GPUs where there is no other in this machine.
    Raises ModelLoadError for a name that no device has.
    """
    devices = [device for device in found if device.kind in (GPU, IGPU)]
    if names == ("none",):
        return []
    if names:
        by_name = {device.name: device for device in devices}
        for name in names:
            if name not in by_name:
                raise ModelLoadError(f"engine.devices: there is no {name}; {_list(devices)}")
        return [by_name[name] for name in names]
    remote = [device for device in devices if device.library == rpc.LIBRARY]
    local = [device for device in devices if device.kind == GPU and device not in remote]
    local = list({device.id or device.name: device for device in reversed(local)}.values())[::-1]
    integrated = [device for device in devices if device.kind == IGPU]
    integrated = [device for device in integrated if device.library == integrated[0].library]
    return remote + (local or integrated)


def _list(devices: list[Device]) -> str:
    """For an error: what there is to name."""
    if not devices:
        return "this build of llama.cpp finds nothing but the CPU"
    return "there are " + ", ".join(f"{d.name} ({d.description})" for d in devices)


def gpus(found: Iterable[Device]) -> list[Device]:
    """Of these devices the GPUs of this machine that llama.cpp would use."""
    return choose((), [device for device in found if device.library != rpc.LIBRARY])


def gpu_memory() -> list[int]:
    """Free bytes of each GPU that llama.cpp would use; empty without one."""
    return [device.free for device in gpus(all_devices())]


class Devices:
    """What a model may use beside the CPU. Keeps the RPC servers for us until it is closed.

    Raises ModelLoadError for what `config` names and does not exist or answer.
    """

    def __init__(self, config: EngineConfig):
        with ExitStack() as stack:
            for endpoint in config.rpc_servers:
                stack.enter_context(rpc.connect(endpoint))
            self.all = all_devices()
            self.chosen = choose(config.devices, self.all)
            if self.chosen and len(config.tensor_split) > len(self.chosen):
                raise ModelLoadError(
                    f"engine.tensor_split has {len(config.tensor_split)} shares; "
                    f"{_list(self.chosen)}"
                )
            overrides(config, self.buffer_types)
            self._connections = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connections.close()

    @property
    def free(self) -> list[int]:
        """Free bytes of each device, as they were when this was opened."""
        return [device.free for device in self.chosen]

    @property
    def pointers(self) -> Any:
        """The devices as llama_model_params wants them: to be kept while the model is loaded."""
        chosen = [device.pointer for device in self.chosen]
        return (ctypes.c_void_p * (len(chosen) + 1))(*chosen, None)

    @property
    def buffer_types(self) -> dict[str, int]:
        """Where tensors can be put: pointers by buffer type and by device, the CPU first."""
        usable = [device for device in self.all if device.kind == CPU] + self.chosen
        by_device = {device.name: device.buffer_type_pointer for device in usable}
        return by_device | {device.buffer_type: device.buffer_type_pointer for device in usable}

    def memory(self, buffers: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
        """Bytes by device, the CPU first, of bytes by the names of buffers.

        What lies in RAM for a device's sake, such as CUDA_Host, is the CPU's.
        """
        held = {"CPU": 0, **{device.name: 0 for device in self.chosen}}
        for buffer, size in buffers.items():
            name = self._holder(buffer)
            held[name] = held.get(name, 0) + size
        return tuple(held.items())

    def _holder(self, buffer: str) -> str:
        if buffer.endswith("_Split"):
            return buffer  # rows of all devices
        fitting = [device for device in self.chosen if buffer.startswith(device.buffer_type)]
        return max(fitting, key=lambda device: len(device.buffer_type)).name if fitting else "CPU"


def lend(endpoint: str, names: tuple[str, ...], n_threads: int, cache: str | None) -> None:
    """Serve devices at host:port, as `rpc.serve` does: all GPUs unless named, else the CPU."""
    found = all_devices()
    if names:
        by_name = {device.name: device for device in found}
        for name in names:
            if name not in by_name:
                raise ModelLoadError(f"there is no device {name}; {_list(found)}")
        lent = [by_name[name] for name in names]
    else:
        lent = choose((), found) or [device for device in found if device.kind == CPU]
    rpc.serve(endpoint, [device.pointer for device in lent], n_threads, cache)
