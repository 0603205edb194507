"""What the names of GGUF files say: the quant, the family, and which part of a model it is."""

import re
from typing import NamedTuple

QUANT = re.compile(
    r"(?<![A-Z0-9])"
    r"((?:UD-)?I?Q[1-8](?:_(?:[0148KSML]|X{1,2}[SL]|NL))*"
    r"|TQ[12]_0|(?:MX|NV)FP4(?:_MOE)?|B?F16|F32|FP16|FP32)"
    r"(?![A-Z0-9])",
    re.IGNORECASE,
)

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})", re.DOTALL)


class Part(NamedTuple):
    """A file of a model: `number` from 1 to `n_parts`, all of which have the same stem."""

    stem: str
    number: int
    n_parts: int


def quant_in(name: str) -> str:
    """The quant in a file's name, or in its path, in capitals; empty if none is.

    The last one counts, as in `f16-to-Q4_0`.
    """
    found = QUANT.findall(name)
    return found[-1].upper() if found else ""


def family_of(stem: str) -> str:
    """A file's name without its quant; the name itself if there is nothing else in it."""
    *_, last = [None, *QUANT.finditer(stem)]
    if last is None:
        return stem
    return stem[: last.start()].rstrip(".-_") + stem[last.end() :] or stem


def part_of(stem: str) -> Part:
    """Which part of a model a file is, by its name without `.gguf`."""
    found = PART.fullmatch(stem)
    return Part(found[1], int(found[2]), int(found[3])) if found else Part(stem, 1, 1)


def part_name(stem: str, number: int, count: int) -> str:
    """The name of the file that holds this part."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"
