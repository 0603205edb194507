"""Client text kept apart from control tokens while a template is rendered.

What a client wrote must never turn into a control token, and after rendering nobody can tell who
wrote `<|im_end|>`. So each control text inside client strings is put between two marks first:
private characters that occur neither in the input nor in the template. Rendering carries them
along; then they are taken out, and their places become the literal ranges of `ipc.Text`.

A template may cut or split content and lose one mark of a pair. The other still protects a control
text that touches it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, cast

from server.errors import InvalidRequest
from server.ipc import Text

PRIVATE = ((0xE000, 0xF900), (0xF0000, 0xFFFFE))
"""Half-open ranges of code points that Unicode leaves to private use."""


class Control(NamedTuple):
    """The control tokens' texts: a pattern that finds any of them, and the longest one's length."""

    pattern: re.Pattern[str]
    longest: int


@lru_cache(maxsize=64)
def control_texts(special: tuple[str, ...]) -> Control | None:
    """What to look for; None where no token is a control token."""
    texts = sorted({text for text in special if text}, key=len, reverse=True)
    if not texts:
        return None
    return Control(re.compile("|".join(map(re.escape, texts))), len(texts[0]))


class Marks(NamedTuple):
    """Three private characters: around a control text, and where a continued message ends."""

    start: str
    end: str
    cut: str

    def wrapper(self, pattern: re.Pattern[str]) -> "Wrapper":
        return Wrapper(pattern, rf"{self.start}\g<0>{self.end}")

    def unescape(self, text: str) -> str:
        """Undo what `tojson(ensure_ascii=true)` does to the marks."""
        for mark in (self.start, self.end, self.cut):
            text = text.replace(_escaped(mark), mark)
        return text

    def strip(self, text: str, control: Control | None) -> Text:
        """Take the marks out; what they enclosed are the literal ranges."""
        parts = re.split(f"([{self.start}{self.end}])", text)
        plain = "".join(parts[::2])
        if control is None or len(parts) == 1:
            return Text(plain)
        return Text(plain, tuple(_merge(self._ranges(parts, plain, control))))

    def _ranges(self, parts: list[str], plain: str, control: Control) -> Iterator[tuple[int, int]]:
        """The ranges behind `parts`: texts at even places, marks at odd ones."""
        at = 0
        closed = False
        for i in range(1, len(parts), 2):
            before, mark, after = parts[i - 1 : i + 2]
            at += len(before)
            if closed:
                closed = False
                continue
            # Escaping at most doubles a text. Longer: the marks are of different pairs.
            closed = (
                mark == self.start
                and parts[i + 2 : i + 3] == [self.end]
                and len(after) <= 2 * control.longest
            )
            if closed:
                yield at, at + len(after)
            elif mark == self.start and (found := control.pattern.match(plain, at)):
                yield at, found.end()
            elif mark == self.end:
                yield from (
                    (start, at)
                    for start in range(max(0, at - control.longest), at)
                    if control.pattern.fullmatch(plain, start, at)
                )


@dataclass(frozen=True, slots=True)
class Wrapper:
    """Puts marks around each control text of a string."""

    pattern: re.Pattern[str]
    replacement: str

    def __call__(self, text: str) -> str:
        return self.pattern.sub(self.replacement, text)


def pick_marks(taken: Iterable[str]) -> Marks:
    """Three private characters that occur in none of these texts, nor do their JSON escapes."""
    text = "\0".join(taken)
    free = (
        mark
        for mark in map(chr, chain.from_iterable(range(*ends) for ends in PRIVATE))
        if mark not in text and _escaped(mark) not in text
    )
    try:
        return Marks(next(free), next(free), next(free))
    except StopIteration:
        raise InvalidRequest(
            "the messages use every private character there is", param="messages"
        ) from None


def _escaped(mark: str) -> str:
    return json.dumps(mark)[1:-1]


def _merge(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ascending ranges, joined where they overlap or touch; empty ones left out."""
    last: tuple[int, int] | None = None
    for start, end in sorted(ranges):
        if start == end:
            continue
        if last and start <= last[1]:
            last = (last[0], max(last[1], end))
            continue
        if last:
            yield last
        last = (start, end)
    if last:
        yield last


def strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[str, object]", value).items():
            yield key
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from strings(item)


def contains(value: object, pattern: re.Pattern[str]) -> bool:
    return any(pattern.search(text) for text in strings(value))


def map_strings(value: object, change: Wrapper) -> object:
    """The same JSON value with every string changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {change(key): map_strings(item, change) for key, item in items}
    if isinstance(value, list | tuple):
        return [map_strings(item, change) for item in cast("Sequence[object]", value)]
    return value
