"""A mixture of experts in the shape of Mixtral, as a GGUF of some megabytes with random weights."""

from pathlib import Path

import gguf
import numpy as np

N_LAYER, N_EMBD, N_FF, N_EXPERTS, N_USED, N_HEAD = 4, 128, 256, 4, 2, 4
N_CTX = 256

CONTROL = ("<unk>", "<s>", "</s>")
TOKENS = (*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)))

EXPERT_BYTES = 3 * N_EXPERTS * N_FF * N_EMBD * 4
"""Of the experts of one layer: three matrices of float32 each."""


def write_mixtral(path: Path) -> Path:
    """The same file each time."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(N_EMBD // N_HEAD)
    writer.add_expert_count(N_EXPERTS)
    writer.add_expert_used_count(N_USED)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    writer.add_token_types([*kinds, *[gguf.TokenType.BYTE] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, tensor in _tensors().items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    random = np.random.default_rng(1)
    square, vocabulary = (N_EMBD, N_EMBD), (len(TOKENS), N_EMBD)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": vocabulary, "output": vocabulary}
    norms = ["output_norm"]
    for layer in range(N_LAYER):
        block = f"blk.{layer}"
        norms += [f"{block}.attn_norm", f"{block}.ffn_norm"]
        shapes |= {f"{block}.attn_{part}": square for part in ("q", "k", "v", "output")}
        shapes[f"{block}.ffn_gate_inp"] = (N_EXPERTS, N_EMBD)
        shapes[f"{block}.ffn_gate_exps"] = (N_EXPERTS, N_FF, N_EMBD)
        shapes[f"{block}.ffn_up_exps"] = (N_EXPERTS, N_FF, N_EMBD)
        shapes[f"{block}.ffn_down_exps"] = (N_EXPERTS, N_EMBD, N_FF)
    weights = {
        f"{name}.weight": random.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5)
        for name, shape in shapes.items()
    }
    return weights | {f"{name}.weight": np.ones(N_EMBD, np.float32) for name in norms}
