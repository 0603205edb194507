"""What lies in a file, by one that the gguf package wrote; `test_gguf` breaks it in every way."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from server.errors import ModelLoadError
from server.gguf_file import Tensor, integer, read_part


def test_a_part(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_feed_forward_length([5, 6, 7])
    writer.add_token_list(["a", "b"])
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("a", gguf.quantize(np.ones((2, 32), np.float32), q8_0), raw_dtype=q8_0)
    writer.add_tensor("b", np.ones(3, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part = read_part(path)
    assert part.tensors == (Tensor("a", 64, 68), Tensor("b", 3, 6))
    assert part.size_bytes == path.stat().st_size
    assert part.values["llama.feed_forward_length"] == (5, 6, 7)
    assert integer(part.values, "tokenizer.ggml.tokens") == 2
    assert integer(part.values, "general.architecture") == integer(part.values, "none") == 0


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="No such file"):
        read_part(tmp_path / "none")
