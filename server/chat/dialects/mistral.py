"""Mistral: `[TOOL_CALLS]`, then an array of calls, or each call as `name[ARGS]{...}`."""

import re

from server.chat.dialect import NAME, Answering, Dialect, Shape, json_call
from server.chat.json_text import Keys, arguments, peek, read_calls
from server.chat.parser import Feed, Reading, accept, match, skip_space

MARK = "[TOOL_CALLS]"
_NAME = re.compile(r"[^\s\[\]{}\"]+")


def read(feed: Feed, _answering: Answering) -> Reading[bool]:
    """Read one block of either form."""
    yield from accept(feed, MARK)
    yield from skip_space(feed)
    if (yield from peek(feed)) in ("[", "{"):
        return (yield from read_calls(feed, Keys()))
    name = yield from match(feed, _NAME)
    if (yield from accept(feed, "[CALL_ID]")):
        yield from match(feed, _NAME)
    given = yield from accept(feed, "[ARGS]")
    yield from skip_space(feed)
    if not name or not (given or (yield from peek(feed)) == "{"):
        return False
    yield (begin := feed.call(name[0]))
    yield from arguments(feed, begin.index)
    return True


DIALECT = Dialect(
    "mistral",
    spoken=lambda source: MARK in source and "[ARGS]" not in source,
    shape=Shape(MARK, json_call(NAME), "}", start="[", between=", ", end="]"),
    read=read,
    marks=("[ARGS]", "[CALL_ID]"),
)

ARGS = Dialect(
    "mistral_args",
    spoken=lambda source: MARK in source and "[ARGS]" in source,
    shape=Shape(MARK, (NAME, "[ARGS]"), between=MARK),
    read=read,
    marks=DIALECT.marks,
)
