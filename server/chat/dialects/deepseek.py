"""DeepSeek V3, R1 and V3.1: a block of calls, each between tokens of its own.

V3 and R1 write `function`, a separator, the name and a code block; V3.1 the name, a separator and
the arguments.
"""

import re

from server.chat.dialect import NAME, Answering, Dialect, Shape
from server.chat.json_text import arguments, peek
from server.chat.parser import Feed, Reading, accept, match, skip_space

CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"  # noqa: RUF001
CALL, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"  # noqa: RUF001
SEPARATOR = "<｜tool▁sep｜>"  # noqa: RUF001
_WORD = re.compile(r"[^\s<{`]+")


def read(feed: Feed, _answering: Answering) -> Reading[bool]:
    """Read a block of calls, of either form."""
    yield from accept(feed, CALLS)
    n_before = feed.n_calls
    while True:
        yield from skip_space(feed)
        if not (yield from accept(feed, CALL)) or not (yield from _read_call(feed)):
            break
        yield from skip_space(feed)
        yield from accept(feed, CALL_END)
        feed.commit()
    if feed.n_calls > n_before:
        yield from accept(feed, CALLS_END)
    return feed.n_calls > n_before


def _read_call(feed: Feed) -> Reading[bool]:
    name = yield from match(feed, _WORD)
    if not name or not (yield from accept(feed, SEPARATOR)):
        return False
    yield from skip_space(feed)
    if (yield from peek(feed)) != "{":
        name = yield from match(feed, _WORD)
        yield from skip_space(feed)
    yield from accept(feed, "```json")
    yield from skip_space(feed)
    if not name or (yield from peek(feed)) != "{":
        return False
    yield (begin := feed.call(name[0]))
    yield from arguments(feed, begin.index)
    yield from skip_space(feed)
    yield from accept(feed, "```")
    return True


DIALECT = Dialect(
    "deepseek",
    spoken=lambda source: CALLS in source and "```json" in source,
    shape=Shape(
        CALLS,
        (CALL, "function", SEPARATOR, NAME, "\n```json\n"),
        f"\n```{CALL_END}",
        between="\n",
        end=CALLS_END,
    ),
    read=read,
    marks=(CALLS_END, CALL, CALL_END, SEPARATOR),
)

V31 = Dialect(
    "deepseek_v31",
    spoken=lambda source: CALLS in source and "```json" not in source,
    shape=Shape(CALLS, (CALL, NAME, SEPARATOR), CALL_END, between="", end=CALLS_END),
    read=read,
    marks=DIALECT.marks,
)
