"""llama.cpp's quantizer."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import ctypes
from collections.abc import Callable
from typing import Any

from server.engine.llama.backend import C
from server.engine.transcript import Transcript
from server.errands import Quantize, Quantized
from server.errors import EngineError
from server.quants import NAMES
from server.threads import cores

FILE_TYPES: dict[str, int] = {
    name: getattr(C, f"LLAMA_FTYPE_{'ALL' if name == 'F32' else 'MOSTLY'}_{name}") for name in NAMES
}


def _ignore(_level: int, _text: bytes, _data: Any) -> None:
    pass


SILENT = C.llama_log_callback(_ignore)


def quantize(job: Quantize, on_bytes: Callable[[int], None]) -> Quantized:
    """Make the quant, or only plan it; `on_bytes` is told of the weights done so far.

    For a process of its own: llama.cpp's log is taken over. Raises EngineError.
    """
    params = C.llama_model_quantize_default_params()
    params.nthread = job.n_threads or cores()
    params.ftype = FILE_TYPES[job.quant]
    params.allow_requantize = job.requantize
    params.dry_run = job.plan is None
    transcript = Transcript()

    def take(level: int, text: bytes, _data: Any) -> None:
        if transcript.feed(level, text.decode(errors="replace")):
            on_bytes(transcript.n_bytes)

    callback = C.llama_log_callback(take)
    C.llama_log_set(callback, None)
    try:
        code = C.llama_model_quantize(
            job.source.encode(), job.target.encode(), ctypes.byref(params)
        )
    finally:
        # No callback at all would print.
        C.llama_log_set(SILENT, None)
    if code:
        raise EngineError(f"cannot make {job.quant} of {job.source}: {transcript.reason()}")
    return transcript.quantized()
