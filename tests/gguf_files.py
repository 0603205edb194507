"""Small GGUF files for tests: headers like those of models, with next to no weights."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
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
    hole: int = 0,
    **keys: Value,
) -> Path:
    """A model of 2 layers, 4 heads and 64 dimensions; `keys` as in general__type="adapter".

    Of several parts the first is returned. `hole`: bytes of one more tensor, of which none are
    written: the file is to be made longer.
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
    if hole:
        writer.add_tensor_info("hole", (hole,), np.dtype(np.int8), hole)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    if hole:
        writer.write_ti_data_to_file()
    else:
        writer.write_tensors_to_file()
    writer.close()
    if n_parts == 1:
        return path
    return path.with_name(f"{path.stem}-00001-of-{n_parts:05d}.gguf")


@dataclass(frozen=True)
class Shape:
    """The sizes of a model. By default those of Mixtral 8x7B in Q4_K_M."""

    n_layer: int = 32
    n_embd: int = 4096
    n_head: int = 32
    n_head_kv: int = 8
    n_ff: int = 14336
    n_vocab: int = 32_000
    n_ctx: int = 32_768
    n_experts: int = 8
    n_used: int = 2
    tied: bool = False
    quant: gguf.LlamaFileType = gguf.LlamaFileType.MOSTLY_Q4_K_M
    most: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q4_K
    cells: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0
    """Of the matrices that make keys and values."""
    output: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q6_K

    @staticmethod
    def kinds() -> dict[str, gguf.GGMLQuantizationType]:
        """Types that all of a model's matrices may have."""
        return {name: gguf.GGMLQuantizationType[name] for name in ("F16", "Q8_0", "Q4_0")}


def write_sparse(path: Path, shape: Shape = Shape()) -> Path:
    """A llama of that shape as llama.cpp opens it, whose weights are a hole in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(shape.quant)
    writer.add_block_count(shape.n_layer)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_context_length(shape.n_ctx)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    if shape.n_experts:
        writer.add_expert_count(shape.n_experts)
        writer.add_expert_used_count(shape.n_used)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{number}>" for number in range(shape.n_vocab)])
    writer.add_token_scores([0.0] * shape.n_vocab)
    writer.add_token_types(
        [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (shape.n_vocab - 3)
    )
    for name, dimensions, kind in _tensors(shape):
        block, n_bytes = gguf.GGML_QUANT_SIZES[kind]
        size = math.prod(dimensions) // block * n_bytes
        writer.add_tensor_info(name, dimensions, np.dtype(np.float32), size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    data = sum(-(-info.nbytes // 32) * 32 for info in writer.tensors[0].values())
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + data)
    return path


def _tensors(
    shape: Shape,
) -> Iterator[tuple[str, tuple[int, ...], gguf.GGMLQuantizationType]]:
    """Name, dimensions (the innermost last) and type of each."""
    f32, most = gguf.GGMLQuantizationType.F32, shape.most
    n_embd, experts = shape.n_embd, (shape.n_experts,) if shape.n_experts else ()
    n_kv = n_embd // shape.n_head * shape.n_head_kv
    yield "token_embd.weight", (shape.n_vocab, n_embd), shape.output if shape.tied else most
    for i in range(shape.n_layer):
        yield f"blk.{i}.attn_norm.weight", (n_embd,), f32
        yield f"blk.{i}.ffn_norm.weight", (n_embd,), f32
        for name, n_out, kind in (
            ("q", n_embd, most),
            ("k", n_kv, shape.cells),
            ("v", n_kv, shape.cells),
            ("output", n_embd, most),
        ):
            yield f"blk.{i}.attn_{name}.weight", (n_out, n_embd), kind
        ending = "_exps" if experts else ""
        for name in ("gate", "up"):
            yield f"blk.{i}.ffn_{name}{ending}.weight", (*experts, shape.n_ff, n_embd), most
        yield f"blk.{i}.ffn_down{ending}.weight", (*experts, n_embd, shape.n_ff), most
        if experts:
            yield f"blk.{i}.ffn_gate_inp.weight", (shape.n_experts, n_embd), f32
    yield "output_norm.weight", (n_embd,), f32
    if not shape.tied:
        yield "output.weight", (shape.n_vocab, n_embd), shape.output
