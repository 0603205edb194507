"""Bagel: the user's words beside a list of functions; JSON or YAML with `function` and `params`.

No template tells of it, they are those of others: a model of Bagel's name does, or one of Bagel's
templates that was asked for. The form in YAML is for the configuration to choose.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import yaml

from server.chat.dialect import NAME, Answering, Dialect, Shape
from server.chat.json_text import Keys, read_call
from server.chat.parser import Feed, Reading, accept, more, skip_space
from server.chat.turn import CallArguments

KEYS = Keys("function", ("params",))
_TASK = (
    "As an AI assistant, please select the most suitable function and parameters from the list of "
    "available functions below, based on the user's input. Provide your response in {form} format."
)


def ask(tools: Sequence[Mapping[str, object]], said: str, form: str = "JSON") -> str:
    """What the user says and the functions, in the words that the models were trained on."""
    listed: dict[str, object] = {}
    for tool in tools:
        function = cast("Mapping[str, object]", tool["function"])
        listed[str(function["name"])] = {
            "description": function.get("description") or "",
            "params": _params(function.get("parameters")),
        }
    text = yaml.safe_dump(listed, sort_keys=False, allow_unicode=True, width=10_000)
    return f"{_TASK.format(form=form)}\n\nInput: {said}\n\nAvailable functions:\n{text}"


def _params(schema: object) -> dict[str, object]:
    """What is told of an object's properties; empty where it has none."""
    fields = cast("Mapping[str, object]", schema if isinstance(schema, Mapping) else {})
    properties = fields.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {
        str(key): _told(value) for key, value in cast("Mapping[str, object]", properties).items()
    }


def _told(schema: object) -> object:
    """A parameter's description, its own parameters, or its schema where it has neither."""
    if not isinstance(schema, Mapping):
        return json.dumps(schema)
    fields = cast("Mapping[str, object]", schema)
    if inner := _params(fields):
        return inner
    description = fields.get("description")
    if not description:
        return json.dumps(fields, ensure_ascii=False)
    values = fields.get("enum")
    if not isinstance(values, Sequence):
        return description
    listed = ", ".join(json.dumps(v, ensure_ascii=False) for v in cast("Sequence[object]", values))
    return f"{description} (one of {listed})"


def read_json(feed: Feed, answering: Answering) -> Reading[bool]:
    """Read `{"function": ..., "params": {...}}`, maybe in a code block."""
    fenced = yield from accept(feed, "```json")
    yield from skip_space(feed)
    if not (yield from read_call(feed, KEYS, answering.names)):
        return False
    if fenced:
        yield from skip_space(feed)
        yield from accept(feed, "```")
    return True


def read_yaml(feed: Feed, answering: Answering) -> Reading[bool]:
    """Read a whole answer in YAML, maybe in a code block. Its arguments come in one piece."""
    fenced = yield from accept(feed, "```yaml")
    start = feed.at
    while (yield from more(feed)):
        pass
    text, _, rest = feed.text[start:].partition("\n```" if fenced else "\n\n")
    try:
        found: object = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return False
    if not isinstance(found, Mapping):
        return False
    fields = cast("Mapping[object, object]", found)
    name, params = fields.get("function"), fields.get("params", {})
    if not isinstance(name, str) or name not in answering.names:
        return False
    feed.at = len(feed.text) - len(rest)
    yield (begin := feed.call(name))
    yield CallArguments(begin.index, json.dumps(params or {}, ensure_ascii=False, default=str))
    return True


DIALECT = Dialect(
    "bagel",
    spoken=lambda _source: False,
    shape=Shape("", ('{\n  "function": "', NAME, '",\n  "params": '), "\n}"),
    read=read_json,
    opens=("{", "```json"),
    own_prompt=True,
    ask=ask,
)

YAML = replace(
    DIALECT,
    name="bagel_yaml",
    shape=Shape("", ("function: ", NAME, "\nparams: ")),
    read=read_yaml,
    opens=("function:", "```yaml"),
    ask=partial(ask, form="YAML"),
)
