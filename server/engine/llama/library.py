"""llama_cpp's ctypes bindings without the rest of its package, and so the only importer of it."""
# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import Any

PACKAGE = "llama_cpp"


@contextmanager
def _bare_package() -> Generator[None]:
    """Modules of the package can be imported without running its `__init__`.

    That imports the class Llama with its chat formats, numpy and jinja2: 0.1 s of every worker's
    start. Who imports the package afterwards gets all of it, around the same bindings.
    """
    spec = find_spec(PACKAGE)
    if PACKAGE in sys.modules or spec is None:
        yield
        return
    sys.modules[PACKAGE] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[PACKAGE]


with _bare_package():
    from llama_cpp import _ggml, llama_cpp

C: Any = llama_cpp
"""llama.cpp's functions, structs and constants."""

ggml: Any = _ggml.libggml
"""ggml's library, which llama_cpp has no bindings for."""
