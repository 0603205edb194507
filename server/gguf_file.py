"""A GGUF file as it lies on disk: its keys, and what its tensors take.

The `gguf` package supplies the tables of types. Its `GGUFReader` makes an array of each token of
the vocabulary and takes two seconds over a small model; this walks past arrays in milliseconds.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

from server.errors import ModelLoadError

ALIGNMENT = 32
"""Of the tensors' data, where the header names none."""

VERSIONS = (2, 3)

STRING, ARRAY = 8, 9
SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""How `struct` reads the value types of a header, by their number."""

Value = str | int | float | bool | tuple[int, ...]
"""Of a key. Only arrays of PER_LAYER are read: the length of others stands for them."""

PER_LAYER = (
    ".attention.head_count",
    ".attention.head_count_kv",
    ".feed_forward_length",
)
"""Endings of keys that hold one number for all layers, or an array with one for each."""

MOST_LAYERS = 4096
"""A longer array is not one of layers."""


class Tensor(NamedTuple):
    """Its size, not its data."""

    name: str
    n_elements: int
    n_bytes: int


class Part(NamedTuple):
    """One file. A model is made of one or of several."""

    values: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    size_bytes: int


class Malformed(Exception):
    """The file breaks the format; the message says how."""


class CutShort(Malformed):
    """It ends inside its header."""


def read_part(path: Path, tokens: list[str] | None = None) -> Part:
    """Read one file's header; the texts of its tokens are added to `tokens`.

    Raises ModelLoadError.
    """
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise Malformed("not a GGUF file: it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Walk(data, len(data), tokens).part()
    except OSError as error:
        raise ModelLoadError(f"{path}: {error.strerror}") from error
    except Malformed as error:
        raise ModelLoadError(f"{path}: {error}") from error


def read_part_beginning(path: PurePath, data: bytes, size_bytes: int) -> Part | None:
    """The header of a file that begins with `data` and has `size_bytes`; None if more is needed.

    Raises ModelLoadError.
    """
    try:
        return _Walk(data, size_bytes).part()
    except CutShort:
        return None
    except Malformed as error:
        raise ModelLoadError(f"{path}: {error}") from error


def integer(values: Mapping[str, Value], key: str) -> int:
    """The number at `key`; 0 where there is none."""
    value = values.get(key)
    return value if isinstance(value, int) else 0


class _Walk:
    """A walk through a header, from its first byte to its last."""

    def __init__(self, data: mmap.mmap | bytes, size_bytes: int, tokens: list[str] | None = None):
        """`data`: the file, or its first bytes; `tokens` are filled with the vocabulary."""
        self._data = data
        self._size = size_bytes
        self._tokens = tokens
        self._at = 0
        self._order = "<"

    def part(self) -> Part:
        """Read all keys and add up all tensors, which must lie inside the file."""
        if self._data[:4] != b"GGUF":
            raise Malformed("not a GGUF file: it does not start with GGUF")
        self._at = 4
        version = self._number("I")
        if version & 0xFFFF == 0:
            self._order = ">"
            version >>= 24
        if version not in VERSIONS:
            raise Malformed(f"GGUF version {version} is not supported")
        n_tensors, n_keys = self._number("Q"), self._number("Q")
        values: dict[str, Value] = {}
        for _ in range(n_keys):
            key = self._string()
            if self._tokens is not None and key == "tokenizer.ggml.tokens":
                self._tokens += self._strings()
                continue
            values[key] = self._value(self._number("I"), key.endswith(PER_LAYER))
        tensors = self._tensors(n_tensors, integer(values, "general.alignment") or ALIGNMENT)
        return Part(values, tensors, self._size)

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        """The sizes of all tensors. Raises Malformed if one reaches past the file's end."""
        from gguf import GGML_QUANT_SIZES  # and numpy with it: 20 MiB that the server does without

        block_of = {int(kind): block for kind, block in GGML_QUANT_SIZES.items()}
        tensors: list[Tensor] = []
        end = 0
        for _ in range(count):
            name = self._string()
            shape = [self._number("Q") for _ in range(self._number("I"))]
            kind, offset = self._number("I"), self._number("Q")
            n_elements = math.prod(shape)
            per_block, n_bytes = block_of.get(kind, (1, 0))
            tensors.append(Tensor(name, n_elements, n_elements // per_block * n_bytes))
            end = max(end, offset + tensors[-1].n_bytes)
        start = -(-self._at // alignment) * alignment
        if count and start + end > self._size:
            raise Malformed(
                f"truncated: {self._size:,} bytes, but its tensors need {start + end:,}"
            )
        return tuple(tensors)

    def _value(self, kind: int, whole: bool) -> Value:
        """A value of type `kind`; an array's numbers if `whole`, else how many there are."""
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._scalar(kind)
        item, count = self._number("I"), self._number("Q")
        if item == STRING:
            self._pass_strings(count)
        elif whole and count <= MOST_LAYERS and _code(item) not in "fd":
            return tuple(int(self._scalar(item)) for _ in range(count))
        else:
            self._take(count * struct.calcsize("=" + _code(item)))
        return count

    def _strings(self) -> list[str]:
        """An array of strings, which a vocabulary is."""
        kind, item, count = self._number("I"), self._number("I"), self._number("Q")
        if (kind, item) != (ARRAY, STRING):
            raise Malformed("the vocabulary is no array of texts")
        return [self._string() for _ in range(count)]

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

    def _cut_short(self) -> CutShort:
        return CutShort(f"truncated: its {len(self._data):,} bytes end inside the header")


def _code(kind: int) -> str:
    if kind not in SCALARS:
        raise Malformed(f"value type {kind} is unknown")
    return SCALARS[kind]
