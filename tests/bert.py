"""BERT in numpy, and as a GGUF: what llama.cpp computes of a file, computed another way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Pooling = Literal["none", "mean", "cls", "rank"]

POOLING = {
    "none": gguf.PoolingType.NONE,
    "mean": gguf.PoolingType.MEAN,
    "cls": gguf.PoolingType.CLS,
    "rank": gguf.PoolingType.RANK,
}

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!"
CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNKNOWN, CLS, SEP = 1, 2, 3
WORDS = ("the", "cat", "dog", "sat", "on", "mat", "what", "does", "eat", "fish", "paris", "is")
TOKENS = (
    *CONTROL,
    *(f"\u2581{piece}" for piece in (*WORDS, *LETTERS)),
    *LETTERS,
)
"""As GGUF has them: what begins a word has the mark that stands for a space."""


@dataclass(frozen=True)
class Bert:
    """Sizes, vocabulary and weights, the weights by their names in a GGUF."""

    n_ctx: int
    n_head: int
    n_layer: int
    tokens: Sequence[str]
    weights: Mapping[str, Array]
    pooling: Pooling = "mean"
    special: tuple[int, int, int] = (UNKNOWN, CLS, SEP)
    n_control: int = len(CONTROL)
    eps: float = 1e-12

    def with_pooling(self, pooling: Pooling) -> "Bert":
        """The same, trained to sum a text up in another way."""
        return replace(self, pooling=pooling)

    def vector(self, ids: Sequence[int]) -> Array:
        """A text's embedding, [n_embd], of length 1."""
        rows = self.rows(ids)
        vector = rows[0] if self.pooling == "cls" else rows.mean(axis=0)
        return vector / np.linalg.norm(vector)

    def score(self, ids: Sequence[int]) -> float:
        """What the head says of a pair, in log odds."""
        pooled = np.tanh(self._linear("cls", self.rows(ids)[0]))
        return float(self._linear("cls.output", pooled)[0])

    def rows(self, ids: Sequence[int]) -> Array:
        """The tokens' vectors, [n, n_embd]."""
        w = self.weights
        x = w["token_embd.weight"][list(ids)] + w["position_embd.weight"][: len(ids)]
        x = self._norm("token_embd_norm", x + w["token_types.weight"][0])
        for layer in range(self.n_layer):
            name = f"blk.{layer}"
            attended = self._linear(f"{name}.attn_output", self._attend(name, x))
            x = self._norm(f"{name}.attn_output_norm", x + attended)
            hidden = _gelu(self._linear(f"{name}.ffn_up", x))
            x = self._norm(
                f"{name}.layer_output_norm", x + self._linear(f"{name}.ffn_down", hidden)
            )
        return x

    def _attend(self, name: str, x: Array) -> Array:
        q, k, v = (self._heads(self._linear(f"{name}.attn_{part}", x)) for part in "qkv")
        scores = q @ k.swapaxes(1, 2) / sqrt(q.shape[2])
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        return (weights @ v).swapaxes(0, 1).reshape(x.shape)

    def _heads(self, x: Array) -> Array:
        return x.reshape(len(x), self.n_head, -1).swapaxes(0, 1)

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(self.eps))
        return centred / scale * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def write(self, path: Path, rerank_template: str | None = None) -> Path:
        """The model as a GGUF."""
        writer = gguf.GGUFWriter(path, "bert")
        writer.add_block_count(self.n_layer)
        writer.add_context_length(self.n_ctx)
        writer.add_embedding_length(self.weights["token_embd.weight"].shape[1])
        writer.add_feed_forward_length(self.weights["blk.0.ffn_up.weight"].shape[0])
        writer.add_head_count(self.n_head)
        writer.add_layer_norm_eps(self.eps)
        writer.add_causal_attention(False)
        if self.pooling != "none":
            writer.add_pooling_type(POOLING[self.pooling])
        self._write_vocabulary(writer)
        if rerank_template is not None:
            writer.add_string("tokenizer.chat_template.rerank", rerank_template)
        for name, weight in self.weights.items():
            writer.add_tensor(name, weight)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _write_vocabulary(self, writer: gguf.GGUFWriter) -> None:
        unknown, cls, sep = self.special
        normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
        writer.add_token_type_count(len(self.weights["token_types.weight"]))
        writer.add_tokenizer_model("bert")
        writer.add_tokenizer_pre("jina-v2-en")
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(
            [control if id < self.n_control else normal for id in range(len(self.tokens))]
        )
        writer.add_unk_token_id(unknown)
        writer.add_bos_token_id(cls)
        writer.add_sep_token_id(sep)


def _gelu(x: Array) -> Array:
    # The exact form needs erf, which numpy has not; llama.cpp uses this one too.
    inner = np.float32(sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
    return 0.5 * x * (1 + np.tanh(inner))


def tiny(seed: int = 0, n_ctx: int = 64, n_embd: int = 32, n_layer: int = 2) -> Bert:
    """A BERT with random weights, and a ranking head that is read only if it is pooled so."""
    random = np.random.default_rng(seed)
    n_ff = 2 * n_embd

    def some(*shape: int) -> Array:
        return random.normal(scale=0.3, size=shape).astype(np.float32)

    weights = {
        "token_embd.weight": some(len(TOKENS), n_embd),
        "position_embd.weight": some(n_ctx, n_embd),
        "token_types.weight": some(2, n_embd),
    }
    linear = {"cls": (n_embd, n_embd), "cls.output": (1, n_embd)}
    norms = ["token_embd_norm"]
    for layer in range(n_layer):
        name = f"blk.{layer}"
        linear |= {f"{name}.attn_{part}": (n_embd, n_embd) for part in ("q", "k", "v", "output")}
        linear |= {f"{name}.ffn_up": (n_ff, n_embd), f"{name}.ffn_down": (n_embd, n_ff)}
        norms += [f"{name}.attn_output_norm", f"{name}.layer_output_norm"]
    for name, shape in linear.items():
        weights |= {f"{name}.weight": some(*shape), f"{name}.bias": some(shape[0])}
    for name in norms:
        weights |= {f"{name}.weight": 1 + some(n_embd), f"{name}.bias": some(n_embd)}
    return Bert(n_ctx, 4, n_layer, TOKENS, weights)


def tokenize(text: str) -> list[int]:
    """Token ids without beginning and end: the longest known piece first, word by word."""
    ids: list[int] = []
    for word in text.split():
        rest = f"\u2581{word}"
        while rest:
            piece = max((token for token in TOKENS if rest.startswith(token)), key=len)
            ids.append(TOKENS.index(piece))
            rest = rest[len(piece) :]
    return ids


def enclosed(*texts: str) -> list[int]:
    """One text, or a pair, as a BERT reads it."""
    return [CLS] + [id for text in texts for id in (*tokenize(text), SEP)]
