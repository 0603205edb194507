"""For models whose templates know no tools: `{"tool_calls": [...]}`, or plain text."""

from server.chat.dialect import NAME, Answering, Dialect, Shape, json_call
from server.chat.json_text import Keys, read_call, string
from server.chat.parser import Feed, Reading, accept, skip_space


def read(feed: Feed, answering: Answering) -> Reading[bool]:
    """Read the one object that holds all calls."""
    yield from accept(feed, "{")
    yield from skip_space(feed)
    if (yield from string(feed)) != "tool_calls":
        return False
    for text in (":", "["):
        yield from skip_space(feed)
        if not (yield from accept(feed, text)):
            return False
    n_before = feed.n_calls
    while True:
        yield from skip_space(feed)
        if not (yield from read_call(feed, Keys(), answering.names)):
            break
        yield from skip_space(feed)
        if not (yield from accept(feed, ",")):
            break
    if feed.n_calls > n_before:
        for text in ("]", "}"):
            yield from skip_space(feed)
            yield from accept(feed, text)
    return feed.n_calls > n_before


DIALECT = Dialect(
    "generic",
    spoken=lambda _source: True,
    shape=Shape(
        "",
        json_call(NAME),
        "}",
        start='{"tool_calls": [',
        between=", ",
        end="]}",
    ),
    read=read,
    opens=("{",),
    own_prompt=True,
)
