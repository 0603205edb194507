"""Gemma 4 and FunctionGemma: `call:name{key:value}`, where strings stand between quote tokens.

A grammar asks for JSON in the braces instead, which alone can be held to a schema.
"""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

from server.chat.dialect import NAME, Answering, Dialect, Shape
from server.chat.json_text import arguments, peek
from server.chat.parser import Feed, Reading, accept, match, skip_space, until
from server.chat.turn import CallArguments, Part

_NAME = re.compile(r"[^\s{}]+")
_WORD = re.compile(r"[^\s,:{}\[\]<]+")


class Marks(NamedTuple):
    """The tokens around a call, and those around a string."""

    begin: str
    end: str
    quote: str


class _Arguments:
    """Writes the arguments of one call, taken from the model's own form, as JSON."""

    def __init__(self, feed: Feed, quote: str, index: int):
        self._feed = feed
        self._quote = quote
        self._index = index

    def _part(self, text: str) -> Part:
        return CallArguments(self._index, text)

    def value(self) -> Reading[None]:
        match (yield from peek(self._feed)):
            case "{":
                yield from self._items("{", "}", self._pair)
            case "[":
                yield from self._items("[", "]", self.value)
            case _ if (yield from accept(self._feed, self._quote)):
                yield from self._string()
            case "":
                pass
            case _:
                word = yield from match(self._feed, _WORD)
                # What cannot stand here is passed over.
                self._feed.at += 0 if word else 1
                self._feed.commit()
                yield self._part(_scalar(word[0]) if word else "null")

    def _items(self, begin: str, end: str, item: Callable[[], Reading[None]]) -> Reading[None]:
        feed = self._feed
        feed.at += 1
        yield self._part(begin)
        first = True
        while True:
            yield from skip_space(feed)
            if (yield from accept(feed, end)):
                feed.commit()
                yield self._part(end)
                return
            if not (yield from peek(feed)):
                return
            if not first:
                yield self._part(", ")
            first = False
            yield from item()
            yield from skip_space(feed)
            yield from accept(feed, ",")

    def _pair(self) -> Reading[None]:
        feed = self._feed
        if (yield from accept(feed, self._quote)):
            yield from self._string()
        else:
            word = yield from match(feed, _WORD)
            if not word and (yield from peek(feed)) != ":":
                # What cannot stand here is passed over.
                feed.take(feed.at + 1)
            yield self._part(json.dumps(word[0] if word else "", ensure_ascii=False))
        yield from skip_space(feed)
        colon = yield from accept(feed, ":")
        yield from skip_space(feed)
        feed.commit()
        if not (yield from peek(feed)):
            return
        yield self._part(": " if colon else ": null")
        if colon:
            yield from self.value()

    def _string(self) -> Reading[None]:
        self._feed.commit()
        yield self._part('"')
        if (yield from until(self._feed, (self._quote,), self._escaped, trim=False)):
            self._feed.take(self._feed.at + len(self._quote))
            yield self._part('"')

    def _escaped(self, text: str) -> Part:
        return self._part(json.dumps(text, ensure_ascii=False)[1:-1])


def _scalar(word: str) -> str:
    try:
        json.loads(word)
    except ValueError:
        return json.dumps(word, ensure_ascii=False)
    return word


def _dialect(name: str, marks: Marks, spoken: Callable[[str], bool]) -> Dialect:
    def read(feed: Feed, _answering: Answering) -> Reading[bool]:
        yield from accept(feed, marks.begin)
        yield from skip_space(feed)
        if not (yield from accept(feed, "call:")):
            return False
        called = yield from match(feed, _NAME)
        if not called or (yield from peek(feed)) != "{":
            return False
        yield (begin := feed.call(called[0]))
        if (yield from _is_json(feed)):
            yield from arguments(feed, begin.index)
        else:
            yield from _Arguments(feed, marks.quote, begin.index).value()
        yield from skip_space(feed)
        yield from accept(feed, marks.end)
        return True

    shape = Shape(marks.begin, ("call:", NAME), marks.end, between=marks.begin)
    return Dialect(name, spoken, shape, read, marks=(marks.end, marks.quote))


def _is_json(feed: Feed) -> Reading[bool]:
    start = feed.at
    feed.at += 1
    yield from skip_space(feed)
    is_json = (yield from peek(feed)) == '"'
    feed.at = start
    return is_json


DIALECT = _dialect(
    "gemma",
    Marks("<|tool_call>", "<tool_call|>", '<|"|>'),
    lambda source: "<|tool_call>" in source,
)
FUNCTION = _dialect(
    "functiongemma",
    Marks("<start_function_call>", "<end_function_call>", "<escape>"),
    lambda source: "<start_function_call>" in source,
)
