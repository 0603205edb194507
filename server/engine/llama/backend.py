"""llama.cpp's start and its log, and objects that are freed once."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from server.engine.llama.library import C

log = logging.getLogger(__name__)

LOG_ERROR = 4

BUFFER = re.compile(r"\w+: +(\S+) +(\S.*) buffer size = +([\d.]+) MiB")
"""A line that tells of memory: the buffer type, what it is for, how large it is."""


class Owned:
    """An object of llama.cpp's, freed once: at the end of a `with`, or by `close`."""

    def __init__(self, pointer: Any, free: Callable[[Any], None]):
        self.pointer = pointer
        self._free = free

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free it. Safe to call again."""
        if self.pointer:
            self._free(self.pointer)
            self.pointer = None


class Log:
    """llama.cpp's log: errors are kept as the reason of what fails next, and sizes of buffers."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], int] = {}
        self._errors: deque[str] = deque(maxlen=8)
        # The callback must live as long as llama.cpp may call it.
        self._callback = C.llama_log_callback(self._take)
        C.llama_log_set(self._callback, None)

    def _take(self, level: int, text: bytes, _data: Any) -> None:
        line = text.decode(errors="replace").strip()
        if level == LOG_ERROR and line:
            self._errors.append(line)
        elif found := BUFFER.match(line):
            self._note_buffer(found[1], found[2], int(float(found[3]) * 2**20))
        log.debug("llama.cpp: %s", line)

    def _note_buffer(self, name: str, purpose: str, size: int) -> None:
        key = name, purpose
        # Of compute and output there is one for each device, which may be made anew.
        before = 0 if purpose in ("compute", "output") else self._buffers.get(key, 0)
        self._buffers[key] = before + size

    @property
    def buffers(self) -> dict[str, int]:
        """Bytes of what was allocated since `forget_buffers`, by llama.cpp's names of buffers."""
        sizes: dict[str, int] = {}
        for (name, _), size in self._buffers.items():
            sizes[name] = sizes.get(name, 0) + size
        return sizes

    def forget_buffers(self) -> None:
        """Count anew: what comes now is another model."""
        self._buffers.clear()

    def reason(self) -> str:
        """What went wrong since the last call, in llama.cpp's words."""
        lines = [re.sub(r"^\w+: ", "", line) for line in self._errors]
        self._errors.clear()
        return "; ".join(dict.fromkeys(lines)) or "llama.cpp gave no reason"


def backend_init() -> Log:
    """Prepare llama.cpp. Once per process; keep what it returns."""
    captured = Log()
    C.llama_backend_init()
    return captured
