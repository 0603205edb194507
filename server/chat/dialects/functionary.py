"""Functionary: v3.1 writes `<function=name>{...}</function>`, v3.2 `>>>name` and a line of JSON.

In v3.2 the prompt ends with `>>>`, and text for the user goes to the recipient `all`.
"""

import re

from server.chat.dialect import NAME, Answering, Dialect, Offer, Shape, call_rules
from server.chat.dialects.llama3 import TAG, read_code
from server.chat.json_text import arguments, peek
from server.chat.lark import ANY, up_to
from server.chat.parser import Feed, Reading, accept, match, read_to, skip_space, until
from server.chat.turn import Content

_NAME = re.compile(r"[^\s<>{}]+")
RECIPIENT, ALL = ">>>", "all\n"


def read_v31(feed: Feed, answering: Answering) -> Reading[bool]:
    """Read one call."""
    if (yield from accept(feed, TAG)):
        return (yield from read_code(feed, answering))
    yield from accept(feed, "<function=")
    name = yield from match(feed, _NAME)
    if not name or not (yield from accept(feed, ">")):
        return False
    yield from skip_space(feed)
    if (yield from peek(feed)) != "{":
        return False
    yield (begin := feed.call(name[0]))
    yield from arguments(feed, begin.index)
    yield from skip_space(feed)
    yield from accept(feed, "</function>")
    return True


def read_v32(feed: Feed, answering: Answering) -> Reading[None]:
    """Read what is said to each recipient."""
    marks = (RECIPIENT,) if answering.names else ()
    found: str | None = ""
    while found is not None and (yield from peek(feed)):
        if (yield from accept(feed, ALL)):
            feed.commit()
        elif (yield from _read_call(feed, answering)):
            yield from skip_space(feed)
            found = yield from accept(feed, RECIPIENT)
            feed.commit()
            if found:
                continue
        elif found:
            yield Content(found)
        if found := (yield from until(feed, marks, Content)):
            feed.take(feed.at + len(found))


def _read_call(feed: Feed, answering: Answering) -> Reading[bool]:
    """Read `name` and its arguments. False: nothing has been read."""
    name = yield from read_to(feed, "\n")
    yield from skip_space(feed)
    if name not in answering.names or (yield from peek(feed)) != "{":
        feed.at = 0
        return False
    assert name
    yield (begin := feed.call(name))
    yield from arguments(feed, begin.index)
    return True


def grammar_v32(offer: Offer) -> str:
    """Text for all, then calls."""
    if not offer.tools:
        return f'start: "all\\n" answer\nanswer: {offer.answer}\n'
    calls = call_rules(V32_SHAPE, offer)
    if offer.required:
        return f"start: calls\n{calls}"
    if offer.answer is not None:
        return f'start: calls | "all\\n" answer\nanswer: {offer.answer}\n{calls}'
    return (
        f'start: calls | "all\\n" (text_and_mark calls | TEXT)\n'
        f"text_and_mark[lazy]: {up_to(RECIPIENT)}\nTEXT: {ANY}\n{calls}"
    )


V31 = Dialect(
    "functionary_v31",
    spoken=lambda source: "<function=" in source and "<parameter=" not in source,
    shape=Shape("<function=", (NAME, ">"), "</function>", between="<function="),
    read=read_v31,
    begins=(TAG,),
)

V32_SHAPE = Shape("", (NAME, "\n"), between=RECIPIENT)

V32 = Dialect(
    "functionary_v32",
    spoken=lambda source: ">>>all" in source and ">>>${recipient}" in source,
    shape=V32_SHAPE,
    read=_read_call,
    read_answer=read_v32,
    grammar=grammar_v32,
    answer_start=ALL,
)
