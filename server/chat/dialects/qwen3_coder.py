"""Qwen3-Coder, Nemotron 3, Seed-OSS: `<function=name>` and `<parameter=key>` as XML-like tags.

A grammar asks for JSON between the function's tags instead, which alone can be held to a schema.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import cast

from server.chat.dialect import NAME, Answering, Dialect, Shape
from server.chat.json_text import arguments, peek
from server.chat.parser import Feed, Reading, accept, match, skip_space, until
from server.chat.turn import CallArguments, Part

_NAME = re.compile(r"[^\s<>]+")
FUNCTION_END = "</function>"
PARAMETER_ENDS = ("\n</parameter>", "</parameter>", "\n<parameter=", "\n</function>")


def _dialect(name: str, mark: str, end: str, spoken: Callable[[str], bool]) -> Dialect:
    def read(feed: Feed, answering: Answering) -> Reading[bool]:
        yield from accept(feed, mark)
        yield from skip_space(feed)
        if not (yield from accept(feed, "<function=")):
            return False
        called = yield from match(feed, _NAME)
        if not called or not (yield from accept(feed, ">")):
            return False
        yield (begin := feed.call(called[0]))
        yield from skip_space(feed)
        feed.commit()
        if (yield from peek(feed)) == "{":
            yield from arguments(feed, begin.index)
        else:
            yield from _parameters(feed, begin.index, _properties(answering, called[0]))
        yield from skip_space(feed)
        yield from accept(feed, FUNCTION_END)
        yield from skip_space(feed)
        yield from accept(feed, end)
        return True

    return Dialect(
        name,
        spoken,
        Shape(mark, ("\n<function=", NAME, ">\n"), f"\n</function>\n{end}", between=f"\n{mark}"),
        read,
        marks=(end,),
    )


def _parameters(feed: Feed, index: int, properties: Mapping[str, object]) -> Reading[None]:
    """Pass the parameters on as one JSON object."""
    separator = "{"
    while (yield from accept(feed, "<parameter=")):
        key = yield from match(feed, _NAME)
        yield from accept(feed, ">")
        yield from accept(feed, "\n")
        feed.commit()
        if key and (yield from peek(feed)):
            name = json.dumps(key[0], ensure_ascii=False)
            yield CallArguments(index, f"{separator}{name}: ")
            separator = ", "
            yield from _value(feed, index, _is_text(properties.get(key[0])))
        yield from skip_space(feed)
        feed.commit()
    if not feed.ended or feed.rest:
        yield CallArguments(index, "{}" if separator == "{" else "}")


def _value(feed: Feed, index: int, is_text: bool) -> Reading[None]:
    """Pass one value on: texts as they come, anything else when it is whole."""
    held: list[str] = []

    def text(part: str) -> Part:
        return CallArguments(index, json.dumps(part, ensure_ascii=False)[1:-1])

    def hold(part: str) -> Part:
        held.append(part)
        return CallArguments(index, "")

    if is_text:
        yield CallArguments(index, '"')
    end = yield from until(feed, PARAMETER_ENDS, text if is_text else hold, trim=False)
    if is_text and end:
        yield CallArguments(index, '"')
    elif not is_text:
        yield CallArguments(index, _json("".join(held)))
    yield from skip_space(feed)
    yield from accept(feed, "</parameter>")


def _json(text: str) -> str:
    """The text if it is JSON, else a string of it. Python's spelling of constants is understood."""
    spelled = {"True": "true", "False": "false", "None": "null"}.get(text.strip(), text)
    try:
        json.loads(spelled)
    except ValueError:
        return json.dumps(text, ensure_ascii=False)
    return spelled


def _properties(answering: Answering, name: str) -> Mapping[str, object]:
    tool = answering.tools.get(name)
    found = (tool.parameters or {}).get("properties") if tool else None
    return cast("Mapping[str, object]", found) if isinstance(found, Mapping) else {}


def _is_text(schema: object) -> bool:
    """Whether a parameter of this schema can only be a string."""
    if not isinstance(schema, Mapping):
        return False
    return cast("Mapping[str, object]", schema).get("type") == "string"


DIALECT = _dialect(
    "qwen3_coder",
    "<tool_call>",
    "</tool_call>",
    lambda source: "<function=" in source and "<parameter=" in source and "<tool_call>" in source,
)
SEED = _dialect(
    "seed_oss",
    "<seed:tool_call>",
    "</seed:tool_call>",
    lambda source: "<seed:tool_call>" in source,
)
