"""What a model may compute on beside the CPU: devices of its RPC servers, GPUs of this machine.

    python -m server.engine.devices

reads the `devices` and the `rpc_servers` of its settings from the standard input, pickled, and
prints one line of JSON for each device. A process of its own: llama.cpp forgets no RPC server.
"""

import json
import pickle
import sys

from server.engine import llama
from server.engine_config import EngineConfig
from server.errors import CorralError


def main() -> None:
    """Tell them in llama.cpp's order; ends with 1 and the reason if a server does not answer."""
    names, servers = pickle.load(sys.stdin.buffer)
    captured = llama.backend_init()
    try:
        with llama.Devices(EngineConfig(devices=names, rpc_servers=servers)) as devices:
            ours = [device.name for device in llama.gpus(devices.all)]
            for device in devices.chosen:
                lent = device.library == llama.RPC
                told = {
                    "name": device.name,
                    "server": device.description if lent else None,
                    "number": ours.index(device.name) if device.name in ours else None,
                    "free": device.free,
                }
                sys.stdout.write(f"{json.dumps(told)}\n")
    except CorralError as error:
        sys.exit(error.message)
    finally:
        # It may be called until here.
        del captured


if __name__ == "__main__":
    main()
