"""Small GGUF files for tests: headers like those of models, with next to no weights."""

from pathlib import Path

import gguf
import numpy as np

Value = str | int | bool | list[str]


def write_gguf(
    path: Path,
    quant: gguf.LlamaFileType = gguf.LlamaFileType.MOSTLY_Q4_K_M,
    architecture: str = "llama",
    *,
    n_tensors: int = 1,
    n_parts: int = 1,
    **keys: Value,
) -> Path:
    """A model of 2 layers, 4 heads and 64 dimensions; `keys` as in general__type="adapter".

    Of several parts the first is returned.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=1 if n_parts > 1 else 0)
    writer.add_file_type(quant)
    shape: dict[str, Value] = {
        f"{architecture}.block_count": 2,
        f"{architecture}.embedding_length": 64,
        f"{architecture}.context_length": 128,
        f"{architecture}.attention.head_count": 4,
    }
    given = {key.replace("__", "."): value for key, value in keys.items()}
    for name, value in (shape | given).items():
        match value:
            case str():
                writer.add_string(name, value)
            case list():
                writer.add_array(name, value)
            case bool():
                writer.add_bool(name, value)
            case int():
                writer.add_uint32(name, value)
    for number in range(n_parts if n_parts > 1 else n_tensors):
        writer.add_tensor(f"t{number}", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if n_parts == 1:
        return path
    return path.with_name(f"{path.stem}-00001-of-{n_parts:05d}.gguf")
