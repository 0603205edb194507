"""The process behind `corral rpc-server`: lends this machine's devices to a Corral elsewhere."""

import signal
import sys

from server.engine import llama
from server.errors import ModelLoadError
from server.threads import cores


def main(endpoint: str, n_threads: int, cache: str, names: tuple[str, ...]) -> str:
    """Serve until a signal ends the process; returns what kept it from that.

    `n_threads`: 0 is one per core; `cache`: a folder or nothing; `names`: devices, CPU among
    them; none: all GPUs, or the CPU where there is none.
    """
    # llama.cpp does not return to Python, which could not tell it of a signal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    captured = llama.backend_init()
    try:
        llama.lend(endpoint, names, n_threads or cores(), cache or None)
    except ModelLoadError as error:
        return error.message
    return f"no longer listening on {endpoint}: {captured.reason()}"


if __name__ == "__main__":
    endpoint, n_threads, cache, *names = sys.argv[1:]
    sys.exit(f"corral: {main(endpoint, int(n_threads), cache, tuple(names))}")
