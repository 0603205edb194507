"""Llama 3.1 to 3.3: `{"name": ..., "parameters": {...}}`, alone or after `<|python_tag|>`.

Built-in tools are called in Python's way, `name.call(key="value")`; what is neither is code for a
tool that takes code.
"""

import json
import re

from server.chat.dialect import NAME, Answering, Dialect, Shape, json_call
from server.chat.json_text import Keys, peek, read_call
from server.chat.parser import Feed, Reading, accept, match, more, skip_space, until
from server.chat.turn import CallArguments

TAG = "<|python_tag|>"
CODE_TOOLS = ("python", "code_interpreter", "ipython")
_NAME = re.compile(r"\w+")
_PAIRS = re.compile(r'((?:[^")]|"(?:[^"\\]|\\.)*")*)\)', re.DOTALL)
_PAIR = re.compile(r'(\w+)\s*=\s*("(?:[^"\\]|\\.)*"|[^,\s]+)', re.DOTALL)


def read(feed: Feed, answering: Answering) -> Reading[bool]:
    """Read calls in JSON, or what follows a python tag."""
    if not (yield from accept(feed, TAG)):
        return (yield from _read_objects(feed, answering))
    yield from skip_space(feed)
    start = feed.at
    if (yield from peek(feed)) == "{" and (yield from read_call(feed, Keys())):
        return True
    feed.at = start
    return (yield from read_code(feed, answering))


def _read_objects(feed: Feed, answering: Answering) -> Reading[bool]:
    if not (yield from read_call(feed, Keys(), answering.names)):
        return False
    while True:
        feed.commit()
        yield from skip_space(feed)
        if (yield from accept(feed, ";", ",")):
            yield from skip_space(feed)
        if not (yield from read_call(feed, Keys(), answering.names)):
            feed.at = 0
            return True


def read_code(feed: Feed, answering: Answering) -> Reading[bool]:
    """Read a call in Python's way, or the rest as code, if there is a tool that takes it."""
    start = feed.at
    called = yield from match(feed, _NAME)
    if called and called[0] in answering.names and (yield from accept(feed, ".call(")):
        pairs = yield from _read_pairs(feed)
        if pairs is not None:
            yield (begin := feed.call(called[0]))
            yield CallArguments(begin.index, pairs)
            return True
    feed.at = start
    name = next((name for name in CODE_TOOLS if name in answering.names), None)
    if name is None:
        return False
    yield (begin := feed.call(name))
    yield CallArguments(begin.index, '{"code": "')
    yield from until(
        feed,
        (),
        lambda text: CallArguments(begin.index, json.dumps(text, ensure_ascii=False)[1:-1]),
    )
    yield CallArguments(begin.index, '"}')
    return True


def _read_pairs(feed: Feed) -> Reading[str | None]:
    """Read `key="value", ...)` as a JSON object; None: it does not end."""
    while (found := _PAIRS.match(feed.text, feed.at)) is None:
        if not (yield from more(feed)):
            return None
    feed.at = found.end()
    pairs = {key: _value(text) for key, text in _PAIR.findall(found[1])}
    return json.dumps(pairs, ensure_ascii=False)


def _value(text: str) -> object:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return text


DIALECT = Dialect(
    "llama3",
    spoken=lambda source: "<|start_header_id|>ipython<|end_header_id|>" in source,
    shape=Shape("", json_call(NAME, arguments="parameters"), "}"),
    read=read,
    begins=(TAG,),
    opens=("{",),
)
