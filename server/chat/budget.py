"""What one rendering may use up: time, memory, and the size of any single value.

Every value that a template makes is checked, so no single operation can take long or fill the
memory, and between operations the clock is read. Containers count as much as they are when written
out: a list that holds one list a thousand times is as large as a thousand lists.
"""

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import cast

from jinja2.exceptions import SecurityError

LIMIT_S = 1.0
"""Seconds of this thread's processor time."""

LARGEST = 4 * 2**20
"""Characters of one value, beside those that the input may bring in."""

TOTAL = 64 * 2**20
"""Characters of all values that are made, beside those that the input may bring in."""

MOST_TOTAL = 2**30

NODE = 8
"""What a list, a number or a key weighs, in characters."""

MAX_BITS = 4096
"""Of an integer."""


class Clock:
    """The time of one rendering, or of several together, on this thread."""

    __slots__ = ("_cpu_start", "_deadline")

    def __init__(self) -> None:
        self._deadline = time.monotonic() + LIMIT_S
        self._cpu_start = time.thread_time()

    def tick(self) -> None:
        """Raises SecurityError if the time is up."""
        if time.monotonic() > self._deadline:
            # The processor may have been busy with others.
            if time.thread_time() - self._cpu_start > LIMIT_S:
                raise SecurityError(f"it ran for more than {LIMIT_S:g} s")
            self._deadline += LIMIT_S / 4


class Budget:
    """The account of one rendering, whose input has `n_input` characters in `n_messages`."""

    __slots__ = ("_known", "_largest", "_left", "tick")

    def __init__(self, n_input: int, n_messages: int, clock: Clock):
        self.tick = clock.tick
        self._largest = LARGEST + 8 * n_input
        # A template that adds message after message to a text makes n/2 texts of half the size.
        self._left = min(TOTAL + n_input * (64 + n_messages), MOST_TOTAL)
        self._known: dict[int, tuple[int, object]] = {}

    def fits(self, n_chars: int) -> None:
        """Raises SecurityError if a value of this size must not be made."""
        if n_chars > self._largest:
            raise SecurityError(f"it makes a value of more than {self._largest:,} characters")

    def spend(self, n_chars: int) -> None:
        """Take note of a value that was made. Raises SecurityError."""
        self.fits(n_chars)
        self._left -= n_chars
        if self._left < 0:
            raise SecurityError("it makes too many large values")

    def both(self, left: object, right: object, sum: object) -> object:
        """The sum of two lists, accounted for without a look at what they hold."""
        weight = self.weigh(left) + self.weigh(right)
        self.fits(weight)
        self._known[id(sum)] = weight, sum
        return self.check(sum)

    def check(self, value: object) -> object:
        """The value, accounted for. What an iterator gives is checked as it comes."""
        self.tick()
        if isinstance(value, str | bytes):
            self.spend(len(value))
        elif isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise SecurityError(f"it makes a number of more than {MAX_BITS:,} bits")
        elif isinstance(value, list | tuple | dict | set | frozenset):
            self.fits(self.weigh(cast("object", value)))
            self.spend(NODE * len(cast("list[object]", value)))
        elif isinstance(value, Iterator):
            return self._checked(cast("Iterator[object]", value))
        return cast("object", value)

    def _checked(self, values: Iterator[object]) -> Iterator[object]:
        for value in values:
            yield self.check(value)

    def weigh(self, value: object) -> int:
        """How many characters it has if written out, about. Containers never change."""
        if isinstance(value, str | bytes):
            return len(value) + NODE
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value)
            parts: Iterable[object] = chain(items.keys(), items.values())
        elif isinstance(value, list | tuple | set | frozenset):
            parts = cast("Iterable[object]", value)
        else:
            return NODE
        known = self._known.get(id(cast("object", value)))
        if known is None:
            # The value is kept with its weight: another one must not get its id.
            known = sum(map(self.weigh, parts), NODE), cast("object", value)
            self._known[id(cast("object", value))] = known
        return known[0]

    def concat(self, parts: Iterable[str]) -> str:
        """The parts as one text."""
        taken: list[str] = []
        n_chars = 0
        for part in parts:
            taken.append(part)
            n_chars += len(part)
            self.fits(n_chars)
        self._left -= n_chars
        return "".join(taken)


_CURRENT: ContextVar[Budget] = ContextVar("budget")
_CLOCK: ContextVar[Clock | None] = ContextVar("clock", default=None)


def current() -> Budget:
    """The budget of what is being rendered here."""
    return _CURRENT.get()


@contextmanager
def budget(n_input: int, n_messages: int) -> Generator[Budget]:
    """A budget for what is rendered in this `with`."""
    found = Budget(n_input, n_messages, _CLOCK.get() or Clock())
    token = _CURRENT.set(found)
    try:
        yield found
    finally:
        _CURRENT.reset(token)


@contextmanager
def one_clock() -> Generator[Clock]:
    """One limit of time for all that is rendered in this `with`."""
    clock = Clock()
    token = _CLOCK.set(clock)
    try:
        yield clock
    finally:
        _CLOCK.reset(token)
