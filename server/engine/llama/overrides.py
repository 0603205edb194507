"""Where single tensors are put: EngineConfig's override_tensors and n_cpu_moe for llama.cpp."""

import ctypes
from collections.abc import Mapping
from typing import Any

from server.engine_config import EngineConfig
from server.errors import ModelLoadError

EXPERTS = r"\.ffn_(gate_up|gate|up|down)_(ch)?exps"
"""The tensors of a layer that hold all its experts."""


class _Override(ctypes.Structure):
    """llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def overrides(config: EngineConfig, buffer_types: Mapping[str, int]) -> Any:
    """The array for llama_model_params, to be kept while the model is loaded; None without any.

    `buffer_types`: pointers by name, the CPU's first. Patterns go to std::regex_search as they
    are, and the first that fits counts: the configured ones come before those for experts. Raises
    ModelLoadError for a buffer type that does not exist.
    """
    rows: list[tuple[bytes, int]] = []
    for pair in config.override_tensors:
        pattern, _, name = pair.rpartition("=")
        if name not in buffer_types:
            raise ModelLoadError(
                f"engine.override_tensors: {pair!r}: there is no buffer type {name}; "
                f"there are {', '.join(buffer_types)}"
            )
        rows.append((pattern.encode(), buffer_types[name]))
    if config.n_cpu_moe:
        cpu = next(iter(buffer_types.values()))
        rows.append((experts(config.n_cpu_moe).encode(), cpu))
    if not rows:
        return None
    return (_Override * (len(rows) + 1))(*rows, (None, None))


def experts(n_layers: int | str) -> str:
    """A pattern for the experts of the first `n_layers` layers, or of `all`."""
    if n_layers == "all":
        return EXPERTS
    numbers = "|".join(str(number) for number in range(int(n_layers)))
    return rf"blk\.({numbers}){EXPERTS}"
