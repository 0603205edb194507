"""Bagel: functions are told in the prompt, the answer is JSON or YAML with `function`, `params`.

Only the configuration can choose it: the models' templates are those of others.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
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


def introduce(tools: Sequence[Mapping[str, object]], form: str) -> str:
    """The functions in the words that the models were trained on."""
    listed: dict[str, object] = {}
    for tool in tools:
        function = cast("Mapping[str, object]", tool["function"])
        schema = cast("Mapping[str, object]", function.get("parameters") or {})
        properties = cast("Mapping[str, object]", schema.get("properties") or {})
        listed[str(function["name"])] = {
            "description": function.get("description") or "",
            "params": {key: _told(value) for key, value in properties.items()},
        }
    text = yaml.safe_dump(listed, sort_keys=False, allow_unicode=True, width=10_000)
    return f"{_TASK.format(form=form)}\n\nAvailable functions:\n{text}"


def _in_json(tools: Sequence[Mapping[str, object]], _sample: str) -> str:
    return introduce(tools, "JSON")


def _in_yaml(tools: Sequence[Mapping[str, object]], _sample: str) -> str:
    return introduce(tools, "YAML")


def _told(schema: object) -> object:
    """A parameter's description, or its schema where it has none."""
    if isinstance(schema, Mapping):
        fields = cast("Mapping[str, object]", schema)
        return fields.get("description") or json.dumps(fields)
    return json.dumps(schema)


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
    introduce=_in_json,
)

YAML = replace(
    DIALECT,
    name="bagel_yaml",
    shape=Shape("", ("function: ", NAME, "\nparams: ")),
    read=read_yaml,
    opens=("function:", "```yaml"),
    introduce=_in_yaml,
)
