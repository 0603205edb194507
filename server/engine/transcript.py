"""Transcript: what llama.cpp's quantizer says, which is all that it tells of its work."""

import re
from collections import Counter

from server.errands import Fallback, Quantized

WARNING, ERROR = 3, 4
"""Levels of llama.cpp's log."""

MIB = 2**20

TENSOR = re.compile(
    r"\[ *\d+/ *(?P<n_tensors>\d+)\] .*, type = +(?P<type>\w+), "
    r".*size = +(?P<old>[\d.]+) MiB(?: -> +(?P<new>[\d.]+) MiB)?"
)
FALLBACK = re.compile(
    r"ncols +(\d+) not divisible by +\d+ \(required for type +(\w+)\).*-> falling back to +(\w+)"
)
BITS = re.compile(r"quant size += .*\((?P<bits>[\d.]+) BPW\)")
PREFIX = re.compile(r"^\w+: (?:failed to quantize: (?:\w+: )?)?")
"""Where in llama.cpp an error comes from."""

FLOATS = frozenset({"f32", "f16", "bf16"})
"""Types that are not quantized."""


class Transcript:
    """The log of one run, fed as it comes: in pieces, of which a line may have several."""

    def __init__(self) -> None:
        self._line = ""
        self._errors: list[str] = []
        self._requantized: set[str] = set()
        self._fallbacks: Counter[tuple[int, str, str]] = Counter()
        self._needs_matrix = False
        self._bits = 0.0
        self._n_tensors = 0
        self._old = self._new = 0.0

    @property
    def n_bytes(self) -> int:
        """Weights done so far."""
        return round(self._new * MIB)

    def feed(self, level: int, text: str) -> bool:
        """Take a piece in; whether a tensor was done with it."""
        if level == ERROR:
            self._errors += [line.strip() for line in text.splitlines() if line.strip(" =")]
            return False
        *lines, self._line = (self._line + text).split("\n")
        done = [self._read(line) for line in lines]
        return any(done)

    def _read(self, line: str) -> bool:
        if tensor := TENSOR.search(line):
            old, new = float(tensor["old"]), float(tensor["new"] or tensor["old"])
            if tensor["new"] and tensor["type"] not in FLOATS:
                self._requantized.add(tensor["type"])
            self._old += old
            self._new += new
            self._n_tensors = int(tensor["n_tensors"])
            return True
        if fallback := FALLBACK.search(line):
            columns, wanted, made = fallback.groups()
            self._fallbacks[int(columns), wanted, made] += 1
        elif bits := BITS.search(line):
            self._bits = float(bits["bits"])
        elif "will require an imatrix" in line:
            self._needs_matrix = True
        return False

    def reason(self) -> str:
        """Why it failed, in llama.cpp's words."""
        lines = [PREFIX.sub("", line) for line in self._errors]
        return "; ".join(dict.fromkeys(lines)) or "llama.cpp gave no reason"

    def quantized(self) -> Quantized:
        """What it came to. Only after a run without an error."""
        return Quantized(
            n_bytes=self.n_bytes,
            source_bytes=round(self._old * MIB),
            bits_per_weight=self._bits,
            n_tensors=self._n_tensors,
            requantized=tuple(sorted(self._requantized)),
            fallbacks=tuple(
                Fallback(*what, count) for what, count in self._fallbacks.most_common()
            ),
            needs_matrix=self._needs_matrix,
        )
