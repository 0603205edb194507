"""The devices of a model that names its own: what they have free, and what goes to which."""

import sys
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from server.engine_config import EngineConfig
from server.errors import EngineError, ModelLoadError
from server.need import MARGIN, Need
from server.pool.inquiry import inquire

COMMAND = (sys.executable, "-m", "server.engine.devices")

ANSWER_S = 15.0
"""Seconds for each server: it may be busy for ten before we know."""


class Device(BaseModel):
    """One device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As llama.cpp calls it."""
    server: str | None
    """Of the RPC server that lends it, host:port; None: it is in this machine."""
    number: int | None
    """Among the GPUs of this machine."""
    free: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Those that a model gets, in the order in which layers are shared out."""

    all: tuple[Device, ...]

    def room(self, total: Need) -> Need:
        """What there is on these, where `total` is for models on this machine's GPUs."""
        return total._replace(gpus=tuple(self._there(device, total) for device in self.all))

    def _there(self, device: Device, total: Need) -> int:
        if device.number is not None and device.number < len(total.gpus):
            return total.gpus[device.number]
        return int(device.free * (1 - MARGIN))

    def ours(self, need: Need, n_gpus: int) -> Need:
        """Of what a model takes on these, what this machine gives."""
        gpus = [0] * n_gpus
        for device, n_bytes in zip(self.all, need.gpus, strict=True):
            if device.number is not None and device.number < n_gpus:
                gpus[device.number] += n_bytes
        return need._replace(gpus=tuple(gpus))

    def lent(self, need: Need) -> dict[str, int]:
        """Of what a model takes on these, what lies with each RPC server."""
        taken: dict[str, int] = {}
        for device, n_bytes in zip(self.all, need.gpus, strict=True):
            if device.server is not None:
                taken[device.server] = taken.get(device.server, 0) + n_bytes
        return taken


async def find(config: EngineConfig, command: tuple[str, ...] = COMMAND) -> Devices:
    """The devices of a model, as they are now.

    Raises ModelLoadError, which names the server that does not answer, or what there is not.
    """
    question = config.devices, config.rpc_servers
    try:
        answer = await inquire(command, question, ANSWER_S * (1 + len(config.rpc_servers)))
    except EngineError as error:
        message = error.message
        if "engine." not in message:
            key = "rpc_servers" if config.rpc_servers else "devices"
            message = f"engine.{key}: {', '.join(config.rpc_servers or config.devices)}: {message}"
        raise ModelLoadError(message) from None
    return Devices(tuple(map(Device.model_validate_json, answer.splitlines())))
