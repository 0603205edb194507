"""The numbers of llama.cpp's file types."""

import gguf

from server.engine.llama.quantize import FILE_TYPES
from server.quants import NAMES


def test_names_are_those_that_headers_use() -> None:
    assert list(FILE_TYPES) == list(NAMES)
    for name, number in FILE_TYPES.items():
        prefix = "ALL" if name == "F32" else "MOSTLY"
        assert gguf.LlamaFileType(number).name == f"{prefix}_{name}"
