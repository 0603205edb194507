"""A GGUF file's header: what the model is, and what each part of it takes, without loading it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

from server.errors import ModelLoadError
from server.filenames import part_name, part_of
from server.gguf_file import (
    MOST_LAYERS,
    Part,
    Tensor,
    Value,
    integer,
    read_part,
    read_part_beginning,
)

EXPERTS = "exps."
"""Inside the names of tensors that hold all experts of a layer."""

OUTPUT = ("output", "cls", "dec.output")
"""Beginnings of the names of tensors behind the last layer."""

Kind = Literal["model", "projector", "adapter", "other"]
"""A projector is the eyes or ears of a model (mmproj), an adapter a LoRA or a control vector."""


class Layer(NamedTuple):
    """One block of a model."""

    weights: int
    """Bytes of all its tensors, its experts too."""
    experts: int
    """Bytes of those of which each token needs a few."""
    k: int
    """Elements of one token's keys; none where the model keeps no cache."""
    v: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF says of its model. Of a model split over several files: of all of them."""

    kind: Kind
    architecture: str
    name: str
    quant: str
    """The type of most weights, as `Q4_K_M`."""
    layers: tuple[Layer, ...]
    input_bytes: int
    """Of the weights before the first layer, and of those with no place of their own."""
    output_bytes: int
    """Of the weights behind the last layer."""
    tied_bytes: int
    """Of the token embedding, where it is the output's matrix as well."""
    largest_bytes: int
    """Of the largest tensor of a layer."""
    n_embd: int
    n_ff: int
    """Elements between the two halves of a feed-forward, of all experts that a token needs."""
    n_head: int
    n_vocab: int
    n_ctx_train: int
    """Tokens of context that the model was trained for; 0 if it does not say."""
    n_params: int
    size_bytes: int
    template: str | None
    """The chat template, in jinja."""
    tool_template: str | None = None
    """The chat template for conversations with tools, where there is one beside the other."""
    document_template: str | None = None
    """The one for conversations about documents."""

    @property
    def n_layer(self) -> int:
        """Blocks. The output is offloaded like one more."""
        return len(self.layers)

    @property
    def n_embd_k(self) -> int:
        """Elements of one token's keys, over all layers."""
        return sum(layer.k for layer in self.layers)

    @property
    def n_embd_v(self) -> int:
        """As `n_embd_k`, of the values."""
        return sum(layer.v for layer in self.layers)

    @property
    def weights(self) -> int:
        """Bytes of all tensors."""
        return self.input_bytes + sum(layer.weights for layer in self.layers) + self.output_bytes

    @property
    def has_experts(self) -> bool:
        """Whether it is a mixture of experts."""
        return any(layer.experts for layer in self.layers)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file for each parameter."""
        return self.size_bytes * 8 / self.n_params if self.n_params else 0.0


def read_header(path: Path) -> Header:
    """Read the header of the model at `path`. Raises ModelLoadError."""
    first = read_part(path)
    others = map(read_part, _siblings(path, integer(first.values, "split.count")))
    return _header(path.stem, [first, *others])


def read_beginning(path: PurePath, data: bytes, size_bytes: int) -> Header | None:
    """The header of a file that begins with `data` and has `size_bytes`; None if more is needed.

    Of a model split over several files, what the first says. Raises ModelLoadError.
    """
    part = read_part_beginning(path, data, size_bytes)
    return None if part is None else _header(path.stem, [part])


def _header(stem: str, parts: Sequence[Part]) -> Header:
    values = parts[0].values
    tensors = [tensor for part in parts for tensor in part.tensors]
    architecture = str(values.get("general.architecture", "unknown"))
    layers, before, behind = _layers(values, architecture, tensors)
    own = any(tensor.name == "output.weight" for tensor in tensors)
    return Header(
        kind=_kind(values, architecture),
        architecture=architecture,
        name=str(values.get("general.name", stem)),
        quant=_quant(values.get("general.file_type")),
        layers=layers,
        input_bytes=before,
        output_bytes=behind,
        tied_bytes=0 if own else sum(t.n_bytes for t in tensors if t.name == "token_embd.weight"),
        largest_bytes=max((t.n_bytes for t in tensors if _layer_of(t.name) is not None), default=0),
        n_embd=integer(values, f"{architecture}.embedding_length"),
        n_ff=_feed_forward(values, architecture),
        n_head=max(_per_layer(values, f"{architecture}.attention.head_count"), default=0),
        n_vocab=integer(values, "tokenizer.ggml.tokens"),
        n_ctx_train=integer(values, f"{architecture}.context_length"),
        n_params=sum(tensor.n_elements for tensor in tensors),
        size_bytes=sum(part.size_bytes for part in parts),
        template=_text(values, "tokenizer.chat_template"),
        tool_template=_text(values, "tokenizer.chat_template.tool_use"),
        document_template=_text(values, "tokenizer.chat_template.rag"),
    )


def read_ends(path: Path) -> tuple[str, str]:
    """The texts of BOS and EOS, empty where a model has none. Raises ModelLoadError."""
    texts: list[str] = []
    values = read_part(path, texts).values
    ids = (values.get(f"tokenizer.ggml.{end}_token_id") for end in ("bos", "eos"))
    bos, eos = (texts[id] if isinstance(id, int) and 0 <= id < len(texts) else "" for id in ids)
    return bos, eos


def _kind(values: Mapping[str, Value], architecture: str) -> Kind:
    """By what the header says it is; older files tell only by their architecture."""
    said = values.get("general.type", "model")
    if said == "adapter" or architecture == "controlvector":
        return "adapter"
    if said == "mmproj" or architecture == "clip":
        return "projector"
    return "model" if said == "model" else "other"


def _per_layer(values: Mapping[str, Value], key: str) -> tuple[int, ...]:
    """One number for each layer: of an array, or the same one for all."""
    value = values.get(key)
    if isinstance(value, tuple):
        return value
    return (value,) * _n_layer(values, key.partition(".")[0]) if isinstance(value, int) else ()


def _n_layer(values: Mapping[str, Value], architecture: str) -> int:
    return min(integer(values, f"{architecture}.block_count"), MOST_LAYERS)


def _layers(
    values: Mapping[str, Value], architecture: str, tensors: Iterable[Tensor]
) -> tuple[tuple[Layer, ...], int, int]:
    """Each layer, and the bytes before the first and behind the last."""
    n_layer = _n_layer(values, architecture)
    weights, experts = [0] * n_layer, [0] * n_layer
    before = behind = 0
    for tensor in tensors:
        number = _layer_of(tensor.name)
        if number is not None and number < n_layer:
            weights[number] += tensor.n_bytes
            experts[number] += tensor.n_bytes if EXPERTS in tensor.name else 0
        elif tensor.name.startswith(OUTPUT):
            behind += tensor.n_bytes
        else:
            before += tensor.n_bytes
    cells = _cells(values, architecture, n_layer)
    layers = (Layer(w, e, *cell) for w, e, cell in zip(weights, experts, cells, strict=True))
    return tuple(layers), before, behind


def _layer_of(tensor: str) -> int | None:
    """7 of blk.7.attn_q.weight; encoders and decoders have a prefix before that."""
    block = tensor.removeprefix("enc.").removeprefix("dec.")
    kind, _, rest = block.partition(".")
    number = rest.partition(".")[0]
    return int(number) if kind == "blk" and number.isdecimal() else None


def _cells(values: Mapping[str, Value], architecture: str, n_layer: int) -> list[tuple[int, int]]:
    """Elements of K and of V of one token, for each layer."""
    attention = f"{architecture}.attention"
    if values.get(f"{attention}.causal") is False:
        return [(0, 0)] * n_layer
    heads = _per_layer(values, f"{attention}.head_count")
    n_kv = _per_layer(values, f"{attention}.head_count_kv") or heads
    length = integer(values, f"{architecture}.embedding_length") // max([1, *heads[:1]])
    k, v = (integer(values, f"{attention}.{name}_length") or length for name in ("key", "value"))
    if integer(values, f"{attention}.key_length_mla"):
        v = 0  # values are a part of what is kept as keys
    padded = (*n_kv, *[0] * n_layer)[:n_layer]
    return [(n * k, n * v) for n in padded]


def _feed_forward(values: Mapping[str, Value], architecture: str) -> int:
    dense = max(_per_layer(values, f"{architecture}.feed_forward_length"), default=0)
    expert = integer(values, f"{architecture}.expert_feed_forward_length") or dense
    return max(dense, expert * integer(values, f"{architecture}.expert_used_count"))


def _siblings(path: Path, count: int) -> list[Path]:
    """The files after `path`, the first of `count`: model-00001-of-00003.gguf and so on."""
    if count < 2:
        return []
    part = part_of(path.stem)
    if part[1:] != (1, count):
        first = part_name("*", 1, count)
        raise ModelLoadError(f"{path}: one of {count} parts; name the first, {first}")
    return [path.with_name(part_name(part.stem, i, count)) for i in range(2, count + 1)]


def _text(values: Mapping[str, Value], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) else None


def _quant(file_type: Value | None) -> str:
    from gguf import LlamaFileType  # and numpy with it: 20 MiB that the server does without

    try:
        return LlamaFileType(file_type).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return "unknown"
