"""all-MiniLM-L6-v2, a real embedding model, from its published weights."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.bert import Array, Bert

CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
"""A layer's weights: GGUF's names and theirs."""

TABLES = {
    "token_embd": "word_embeddings",
    "position_embd": "position_embeddings",
    "token_types": "token_type_embeddings",
}


def minilm(archive: Path) -> Bert:
    """The model in a zip file that has its safetensors and its tokenizer."""
    with zipfile.ZipFile(archive) as file:
        tensors = _tensors(file.read("model.safetensors"))
        config = json.loads(file.read("config.json"))
        vocabulary: dict[str, int] = json.loads(file.read("tokenizer.json"))["model"]["vocab"]
    weights = {
        f"{ours}.weight": tensors[f"embeddings.{theirs}.weight"] for ours, theirs in TABLES.items()
    }
    pairs = {"token_embd_norm": "embeddings.LayerNorm"}
    for n in range(config["num_hidden_layers"]):
        pairs |= {f"blk.{n}.{o}": f"encoder.layer.{n}.{t}" for o, t in LAYER.items()}
    for ours, theirs in pairs.items():
        weights |= {f"{ours}.{kind}": tensors[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    return Bert(
        n_ctx=config["max_position_embeddings"],
        n_head=config["num_attention_heads"],
        n_layer=config["num_hidden_layers"],
        tokens=[_marked(token) for token in sorted(vocabulary, key=vocabulary.__getitem__)],
        weights=weights,
        special=(vocabulary["[UNK]"], vocabulary["[CLS]"], vocabulary["[SEP]"]),
        n_control=1 + vocabulary["[MASK]"],
        eps=config["layer_norm_eps"],
    )


def _marked(token: str) -> str:
    """As GGUF has it: what begins a word is marked, not what continues one."""
    if token in CONTROL or token.startswith("[unused"):
        return token
    return token[2:] if token.startswith("##") else f"\u2581{token}"


def _tensors(raw: bytes) -> Mapping[str, Array]:
    """What a safetensors file holds: the length of a JSON header, the header, the numbers."""
    n = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + n])
    found: dict[str, Array] = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            numbers = np.frombuffer(raw[8 + n + begin : 8 + n + end], "<f4")
            found[name] = numbers.reshape(entry["shape"])
    return found
