"""A GGUF file's header: what the model is, without loading it.

The `gguf` package supplies the tables of types. Its `GGUFReader` makes an array of each token of
the vocabulary and takes two seconds over a small model; this walks past arrays in milliseconds.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from server.errors import ModelLoadError
from server.filenames import part_name, part_of

ALIGNMENT = 32
"""Of the tensors' data, where the header names none."""

VERSIONS = (2, 3)

STRING, ARRAY = 8, 9
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""How `struct` reads the value types of a header, by their number."""

Value = str | int | float | bool | tuple[int, ...]
"""Of a key. Only arrays of PER_LAYER are read: the length of others stands for them."""

PER_LAYER = (".attention.head_count", ".attention.head_count_kv")
"""Endings of keys that hold one number for all layers, or an array with one for each."""

MOST_LAYERS = 4096
"""A longer array is not one of layers."""

Kind = Literal["model", "projector", "adapter", "other"]
"""A projector is the eyes or ears of a model (mmproj), an adapter a LoRA or a control vector."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF says of its model. Of a model split over several files: of all of them."""

    kind: Kind
    architecture: str
    name: str
    quant: str
    """The type of most weights, as `Q4_K_M`."""
    n_layer: int
    n_embd: int
    n_head: int
    n_embd_k: int
    """Elements of the keys of one token, over all layers; none where the model keeps no cache."""
    n_embd_v: int
    """As `n_embd_k`, of the values."""
    n_vocab: int
    n_ctx_train: int
    """Tokens of context that the model was trained for; 0 if it does not say."""
    n_params: int
    size_bytes: int
    template: str | None
    """The chat template, in jinja."""

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file for each parameter."""
        return self.size_bytes * 8 / self.n_params if self.n_params else 0.0


@dataclass(frozen=True, slots=True)
class _Part:
    """One file: its keys, and the sums over its tensors and bytes."""

    values: Mapping[str, Value]
    n_params: int
    size_bytes: int


class _Malformed(Exception):
    """The file breaks the format; the message says how."""


def read_header(path: Path) -> Header:
    """Read the header of the model at `path`. Raises ModelLoadError."""
    first = _read_part(path)
    values = first.values
    parts = [first, *map(_read_part, _siblings(path, _integer(values, "split.count")))]
    architecture = str(values.get("general.architecture", "unknown"))
    template = values.get("tokenizer.chat_template")
    n_embd_k, n_embd_v = _cell(values, architecture)
    return Header(
        kind=_kind(values, architecture),
        architecture=architecture,
        name=str(values.get("general.name", path.stem)),
        quant=_quant(values.get("general.file_type")),
        n_layer=_integer(values, f"{architecture}.block_count"),
        n_embd=_integer(values, f"{architecture}.embedding_length"),
        n_head=max(_per_layer(values, f"{architecture}.attention.head_count"), default=0),
        n_embd_k=n_embd_k,
        n_embd_v=n_embd_v,
        n_vocab=_integer(values, "tokenizer.ggml.tokens"),
        n_ctx_train=_integer(values, f"{architecture}.context_length"),
        n_params=sum(part.n_params for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        template=template if isinstance(template, str) else None,
    )


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
    layers = _integer(values, f"{key.partition('.')[0]}.block_count")
    return (value,) * layers if isinstance(value, int) else ()


def _cell(values: Mapping[str, Value], architecture: str) -> tuple[int, int]:
    """Elements of K and of V of one token, over all layers."""
    attention = f"{architecture}.attention"
    if values.get(f"{attention}.causal") is False:
        return 0, 0
    heads = _per_layer(values, f"{attention}.head_count")
    n_kv = sum(_per_layer(values, f"{attention}.head_count_kv") or heads)
    length = _integer(values, f"{architecture}.embedding_length") // max([1, *heads[:1]])
    k, v = (_integer(values, f"{attention}.{name}_length") or length for name in ("key", "value"))
    return n_kv * k, n_kv * v


def _siblings(path: Path, count: int) -> list[Path]:
    """The files after `path`, the first of `count`: model-00001-of-00003.gguf and so on."""
    if count < 2:
        return []
    part = part_of(path.stem)
    if part[1:] != (1, count):
        first = part_name("*", 1, count)
        raise ModelLoadError(f"{path}: one of {count} parts; name the first, {first}")
    return [path.with_name(part_name(part.stem, i, count)) for i in range(2, count + 1)]


def _integer(values: Mapping[str, Value], key: str) -> int:
    value = values.get(key)
    return value if isinstance(value, int) else 0


def _quant(file_type: Value | None) -> str:
    from gguf import LlamaFileType  # and numpy with it: 20 MiB that the server does without

    try:
        return LlamaFileType(file_type).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return "unknown"


def _read_part(path: Path) -> _Part:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise _Malformed("not a GGUF file: it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Walk(data).part()
    except OSError as error:
        raise ModelLoadError(f"{path}: {error.strerror}") from error
    except _Malformed as error:
        raise ModelLoadError(f"{path}: {error}") from error


class _Walk:
    """A walk through a header, from its first byte to its last."""

    def __init__(self, data: mmap.mmap):
        self._data = data
        self._at = 0
        self._order = "<"

    def part(self) -> _Part:
        """Read all keys and add up all tensors, which must lie inside the file."""
        if self._data[:4] != b"GGUF":
            raise _Malformed("not a GGUF file: it does not start with GGUF")
        self._at = 4
        version = self._number("I")
        if version & 0xFFFF == 0:
            self._order = ">"
            version >>= 24
        if version not in VERSIONS:
            raise _Malformed(f"GGUF version {version} is not supported")
        n_tensors, n_keys = self._number("Q"), self._number("Q")
        values: dict[str, Value] = {}
        for _ in range(n_keys):
            key = self._string()
            values[key] = self._value(self._number("I"), key.endswith(PER_LAYER))
        n_params = self._tensors(n_tensors, _integer(values, "general.alignment") or ALIGNMENT)
        return _Part(values, n_params, len(self._data))

    def _tensors(self, count: int, alignment: int) -> int:
        """The parameters of all tensors. Raises _Malformed if one reaches past the file's end."""
        from gguf import GGML_QUANT_SIZES

        block_of = {int(kind): block for kind, block in GGML_QUANT_SIZES.items()}
        n_params = end = 0
        for _ in range(count):
            self._string()
            shape = [self._number("Q") for _ in range(self._number("I"))]
            kind, offset = self._number("I"), self._number("Q")
            n_elements = math.prod(shape)
            n_params += n_elements
            per_block, n_bytes = block_of.get(kind, (1, 0))
            end = max(end, offset + n_elements // per_block * n_bytes)
        start = -(-self._at // alignment) * alignment
        if count and start + end > len(self._data):
            raise _Malformed(
                f"truncated: {len(self._data):,} bytes, but its tensors need {start + end:,}"
            )
        return n_params

    def _value(self, kind: int, whole: bool) -> Value:
        """A value of type `kind`; an array's numbers if `whole`, else how many there are."""
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._scalar(kind)
        item, count = self._number("I"), self._number("Q")
        if item == STRING:
            self._pass_strings(count)
        elif whole and count <= MOST_LAYERS:
            return tuple(int(self._scalar(item)) for _ in range(count))
        else:
            self._take(count * struct.calcsize("=" + _code(item)))
        return count

    def _pass_strings(self, count: int) -> None:
        """Go past `count` strings: the vocabulary, most of the header of a model."""
        size_at = struct.Struct(self._order + "Q").unpack_from
        data, at, last = self._data, self._at, len(self._data) - 8
        for _ in range(count):
            if at > last:
                raise self._cut_short()
            at += 8 + size_at(data, at)[0]
        self._at = at
        self._take(0)

    def _scalar(self, kind: int) -> int | float | bool:
        code = _code(kind)
        at = self._take(struct.calcsize("=" + code))
        return struct.unpack_from(self._order + code, self._data, at)[0]

    def _number(self, code: str) -> int:
        at = self._take(8 if code == "Q" else 4)
        return struct.unpack_from(self._order + code, self._data, at)[0]

    def _string(self) -> str:
        size = self._number("Q")
        at = self._take(size)
        return self._data[at : at + size].decode("utf-8", errors="replace")

    def _take(self, size: int) -> int:
        """Go `size` bytes on; the place before them."""
        at = self._at
        self._at = at + size
        if self._at > len(self._data):
            raise self._cut_short()
        return at

    def _cut_short(self) -> _Malformed:
        return _Malformed(f"truncated: its {len(self._data):,} bytes end inside the header")


def _code(kind: int) -> str:
    if kind not in SCALARS:
        raise _Malformed(f"value type {kind} is unknown")
    return SCALARS[kind]
