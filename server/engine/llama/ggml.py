"""ggml's functions for devices, which llama_cpp has no bindings for."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false

from ctypes import c_char_p, c_size_t, c_void_p
from typing import Any

from server.engine.llama.library import ggml

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "ggml_backend_buft_name": (c_char_p, c_void_p),
    "ggml_backend_dev_backend_reg": (c_void_p, c_void_p),
    "ggml_backend_dev_buffer_type": (c_void_p, c_void_p),
    "ggml_backend_dev_count": (c_size_t,),
    "ggml_backend_dev_description": (c_char_p, c_void_p),
    "ggml_backend_dev_get": (c_void_p, c_size_t),
    "ggml_backend_dev_get_props": (None, c_void_p, c_void_p),
    "ggml_backend_dev_init": (c_void_p, c_void_p, c_char_p),
    "ggml_backend_free": (None, c_void_p),
    "ggml_backend_reg_by_name": (c_void_p, c_char_p),
    "ggml_backend_reg_dev_get": (c_void_p, c_void_p, c_size_t),
    "ggml_backend_reg_get_proc_address": (c_void_p, c_void_p, c_char_p),
    "ggml_backend_reg_name": (c_char_p, c_void_p),
    "ggml_backend_register": (None, c_void_p),
}
"""By name: the type of the result, then those of the arguments."""

for name, (result, *arguments) in SIGNATURES.items():
    function = getattr(ggml, name)
    function.restype, function.argtypes = result, arguments
