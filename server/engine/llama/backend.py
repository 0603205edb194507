"""llama.cpp's library, its log and its devices."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import ctypes
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from llama_cpp import _ggml
from llama_cpp import llama_cpp as bindings

log = logging.getLogger(__name__)

C: Any = bindings
"""The library's functions, structs and constants."""

LOG_ERROR = 4
DEVICE_GPU, DEVICE_IGPU = 1, 2


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
    """llama.cpp's log: errors are kept as the reason of what fails next."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=8)
        # The callback must live as long as llama.cpp may call it.
        self._callback = C.llama_log_callback(self._take)
        C.llama_log_set(self._callback, None)

    def _take(self, level: int, text: bytes, _data: Any) -> None:
        line = text.decode(errors="replace").strip()
        if level == LOG_ERROR and line:
            self._errors.append(line)
        log.debug("llama.cpp: %s", line)

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


def gpu_memory() -> list[int]:
    """Free bytes of each GPU that llama.cpp can use; empty without one."""
    ggml: Any = _ggml.libggml
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    size_p = ctypes.POINTER(ctypes.c_size_t)
    base: Any = ctypes.CDLL(None) if not hasattr(ggml, "ggml_backend_dev_memory") else ggml
    base.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size_p, size_p]
    base.ggml_backend_dev_memory.restype = None
    base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    found: list[int] = []
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        if base.ggml_backend_dev_type(device) in (DEVICE_GPU, DEVICE_IGPU):
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            found.append(free.value)
    return found
