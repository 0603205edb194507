"""Reading an answer while it comes: what a dialect's reader is made of.

A reader is a generator over a Feed. It yields parts as soon as they are certain, and None where it
needs more text. So a dialect reads its syntax from front to back, as if all of it were there, and
where the stream was cut makes no difference.

What might still turn out to be something else is read *tentatively*: the feed keeps the text, and
the reader may step back. `Feed.commit` lets go of what has been read for good.
"""

import re
import secrets
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import TypeVar

from server.chat.turn import CallBegin, Part

T = TypeVar("T")
Reading = Generator[Part | None, None, T]
"""Yields parts, or None for "more text, please"; returns a T."""


class Feed:
    """The part of an answer that has come and has not been read for good."""

    __slots__ = ("at", "ended", "n_calls", "text")

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        """What stands before this place in `text` has been read, maybe tentatively."""
        self.ended = False
        self.n_calls = 0

    def call(self, name: str) -> CallBegin:
        """The answer's next call. What has been read stays read."""
        self.commit()
        begin = CallBegin(self.n_calls, f"call_{secrets.token_hex(12)}", name)
        self.n_calls += 1
        return begin

    def commit(self) -> None:
        """What has been read stays read."""
        self.text = self.text[self.at :]
        self.at = 0

    def take(self, end: int) -> str:
        """Read up to `end`, for good."""
        taken = self.text[self.at : end]
        self.at = end
        self.commit()
        return taken

    @property
    def rest(self) -> str:
        return self.text[self.at :]


class StreamParser:
    """A reader that is given its text bit by bit."""

    def __init__(self, reader: Callable[[Feed], Reading[None]]):
        self._feed = Feed()
        self._reader = reader(self._feed)

    def push(self, text: str) -> list[Part]:
        """The next text of the answer, cut anywhere; what is certain by now."""
        self._feed.text += text
        return self._read()

    def finish(self) -> list[Part]:
        """No more text comes: what was held back."""
        self._feed.ended = True
        return self._read()

    def _read(self) -> list[Part]:
        parts: list[Part] = []
        for part in self._reader:
            if part is None:
                break
            if isinstance(part, CallBegin) or part.text:
                parts.append(part)
        return parts


def more(feed: Feed) -> Reading[bool]:
    """Wait for text. False: none comes any more."""
    if feed.ended:
        return False
    yield None
    return True


@lru_cache(maxsize=256)
def _finder(marks: tuple[str, ...], trim: bool) -> re.Pattern[str]:
    """Finds the first of `marks`, or what may become one of them at the end of the text.

    With `trim` white space before either belongs to it.
    """
    space = r"\s*" if trim else ""
    whole = "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
    begun = {mark[:length] for mark in marks for length in range(1, len(mark))}
    parts = "|".join(map(re.escape, sorted(begun, key=len, reverse=True)))
    return re.compile(rf"{space}(?:({whole or '(?!)'})|(?:{parts})?\Z)")


def until(
    feed: Feed, marks: tuple[str, ...], kind: Callable[[str], Part], trim: bool = True
) -> Reading[str | None]:
    """Pass text on up to the first of `marks`, which is left to be read; None: none came.

    With `trim` white space before a mark is read, tentatively, and not passed on.
    """
    find = _finder(marks, trim)
    while True:
        found = find.search(feed.text, feed.at)
        assert found  # the end of the text matches
        if found.start() > feed.at:
            yield kind(feed.take(found.start()))
            continue
        if found[1] is not None:
            feed.at = found.start(1)
            return found[1]
        if not (yield from more(feed)):
            if rest := feed.take(len(feed.text)):
                yield kind(rest)
            return None


def skip_space(feed: Feed) -> Reading[None]:
    """Read white space, tentatively."""
    while True:
        while feed.at < len(feed.text):
            if not feed.text[feed.at].isspace():
                return
            feed.at += 1
        if not (yield from more(feed)):
            return


def accept(feed: Feed, *texts: str) -> Reading[str | None]:
    """Read the longest of `texts` that comes next, tentatively; None: none of them does."""
    while True:
        rest = feed.rest
        waiting = not feed.ended and any(
            len(rest) < len(text) and text.startswith(rest) for text in texts
        )
        if not waiting:
            fitting = [text for text in texts if rest.startswith(text)]
            if not fitting:
                return None
            longest = max(fitting, key=len)
            feed.at += len(longest)
            return longest
        yield from more(feed)


def match(feed: Feed, pattern: re.Pattern[str]) -> Reading[re.Match[str] | None]:
    """Read what `pattern` matches here, tentatively, once more text cannot make it longer."""
    while True:
        found = pattern.match(feed.text, feed.at)
        decided = found.end() < len(feed.text) if found else feed.at < len(feed.text)
        if decided or not (yield from more(feed)):
            if found:
                feed.at = found.end()
            return found


def read_to(feed: Feed, mark: str) -> Reading[str | None]:
    """Read up to and over `mark`, tentatively: what stood before it; None: it does not come."""
    start = searched = feed.at
    while (at := feed.text.find(mark, searched)) < 0:
        searched = max(start, len(feed.text) - len(mark) + 1)
        if not (yield from more(feed)):
            return None
    feed.at = at + len(mark)
    return feed.text[start:at]
