"""Reading JSON from a feed: calls written as objects, and arguments passed on as they come."""

import json
import re
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from server.chat.parser import Feed, Reading, accept, match, more, skip_space
from server.chat.turn import CallArguments

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR = re.compile(r"[^\s,:{}\[\]\"]+")
_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\]')


class _Nesting:
    """Where in an array or object a scan has come to."""

    __slots__ = ("depth", "escaped", "quoted")

    def __init__(self) -> None:
        self.depth = 0
        self.quoted = False
        self.escaped = False

    def end(self, text: str, at: int) -> int | None:
        """Scan on from `at`: where the value ends, or None if it goes on."""
        while at < len(text):
            if self.escaped:
                self.escaped = False
                at += 1
                continue
            found = (_INSIDE if self.quoted else _OUTSIDE).search(text, at)
            if not found:
                return None
            at = found.end()
            match found[0]:
                case '"':
                    self.quoted = not self.quoted
                case "\\":
                    self.escaped = True
                case "{" | "[":
                    self.depth += 1
                case _:
                    self.depth -= 1
                    if self.depth == 0:
                        return at
        return None


def peek(feed: Feed) -> Reading[str]:
    """The next character, not read; none at the end of the text."""
    while feed.at >= len(feed.text):
        if not (yield from more(feed)):
            return ""
    return feed.text[feed.at]


def string(feed: Feed) -> Reading[str | None]:
    """Read a whole JSON string, tentatively; None: there is none."""
    while True:
        if found := _STRING.match(feed.text, feed.at):
            feed.at = found.end()
            with suppress(ValueError):
                return json.loads(found[0], strict=False)
            return None
        if (yield from peek(feed)) != '"' or not (yield from more(feed)):
            return None


def skip_value(feed: Feed) -> Reading[bool]:
    """Read a whole JSON value, tentatively. False: none, or it does not end."""
    match (yield from peek(feed)):
        case '"':
            return (yield from string(feed)) is not None
        case "{" | "[":
            nesting, at = _Nesting(), feed.at
            while (end := nesting.end(feed.text, at)) is None:
                at = len(feed.text)
                if not (yield from more(feed)):
                    return False
            feed.at = end
            return True
        case _:
            return bool((yield from match(feed, _SCALAR)))


def arguments(feed: Feed, index: int) -> Reading[None]:
    """Pass a JSON value on, as it comes, as the arguments of call `index`.

    A string is taken for JSON inside a string, as some models write it.
    """
    first = yield from peek(feed)
    if first in ("{", "["):
        nesting = _Nesting()
        while True:
            end = nesting.end(feed.text, feed.at)
            if feed.at < len(feed.text):
                yield CallArguments(index, feed.take(len(feed.text) if end is None else end))
            if end is not None or not (yield from more(feed)):
                return
    start = feed.at
    if first == '"' and (text := (yield from string(feed))) is not None:
        feed.commit()
        yield CallArguments(index, text or "{}")
    elif (feed.at == start) and (yield from skip_value(feed)):
        text = feed.text[start : feed.at]
        feed.commit()
        yield CallArguments(index, "{}" if text == "null" else text)


class Keys(NamedTuple):
    """What a call's object calls its parts."""

    name: str = "name"
    arguments: tuple[str, ...] = ("arguments", "parameters")


def read_call(feed: Feed, keys: Keys, known: Set[str] | None = None) -> Reading[bool]:
    """Read `{"name": ..., "arguments": {...}}`, the keys in any order. False: it is no call.

    With `known` only these names are calls, and only with arguments.
    """
    if not (yield from accept(feed, "{")):
        return False
    found = _Found()
    while True:
        yield from skip_space(feed)
        if (yield from accept(feed, "}")):
            break
        if not (yield from _read_pair(feed, keys, known, found)):
            return found.begun
        yield from skip_space(feed)
        yield from accept(feed, ",")
    if not found.begun:
        if found.name is None or (found.arguments is None and known is not None):
            return False
        yield (begin := feed.call(found.name))
        yield CallArguments(begin.index, found.arguments or "{}")
    return True


@dataclass(slots=True)
class _Found:
    """What is known of a call that is being read."""

    name: str | None = None
    arguments: str | None = None
    """Held while the name is not known."""
    begun: bool = False


def _read_pair(feed: Feed, keys: Keys, known: Set[str] | None, found: _Found) -> Reading[bool]:
    """Read a key and its value. False: this object is no call, or nothing further comes."""
    key = yield from _key(feed)
    if key is None:
        return False
    if key == keys.name and found.name is None:
        found.name = yield from string(feed)
        return found.name is not None and (known is None or found.name in known)
    fresh = key in keys.arguments and not found.begun and found.arguments is None
    if fresh and found.name is not None:
        found.begun = True
        yield (begin := feed.call(found.name))
        yield from arguments(feed, begin.index)
        return True
    start = feed.at
    whole = yield from skip_value(feed)
    if fresh and whole:
        found.arguments = feed.text[start : feed.at]
    return whole


def _key(feed: Feed) -> Reading[str | None]:
    key = yield from string(feed)
    yield from skip_space(feed)
    if key is None or not (yield from accept(feed, ":")):
        return None
    yield from skip_space(feed)
    return key


def read_calls(feed: Feed, keys: Keys, known: Set[str] | None = None) -> Reading[bool]:
    """Read one call, or an array of them. False: there is none."""
    if not (yield from accept(feed, "[")):
        return (yield from read_call(feed, keys, known))
    n_before = feed.n_calls
    while True:
        yield from skip_space(feed)
        if not (yield from read_call(feed, keys, known)):
            break
        yield from skip_space(feed)
        if not (yield from accept(feed, ",")):
            break
    if feed.n_calls > n_before:
        yield from accept(feed, "]")
    return feed.n_calls > n_before
