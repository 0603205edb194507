"""Grammars as llguidance's Lark text."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from server.chat.turn import Tool
from server.errors import InvalidRequest

ANY = r"/(?s:.*)/"

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
STATED = ("enum", "const", "required", "$ref")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
LENGTHS, MAX_LENGTH = ("minLength", "maxLength", "minItems", "maxItems"), 4096
MAPS = ("properties", "$defs", "definitions")
LISTS, SINGLE = ("anyOf", "oneOf", "allOf", "prefixItems"), ("items", "additionalProperties")


class Pattern(NamedTuple):
    """A piece of a call's syntax that is not always the same: a regex, and a text it matches."""

    regex: str
    sample: str


Piece = str | Pattern


@dataclass(frozen=True, slots=True)
class Spelling:
    """Writes texts down as a model would produce them: control tokens as tokens."""

    ids: Mapping[str, int | None]
    """The control tokens' texts; their ids where known."""

    def text(self, *pieces: Piece) -> str:
        """A sequence of string literals and tokens; nothing for an empty text."""
        joined: list[Piece] = []
        for piece in pieces:
            last = joined[-1] if joined else None
            if isinstance(last, str) and isinstance(piece, str):
                joined[-1] = last + piece
            else:
                joined.append(piece)
        return " ".join(item for piece in joined for item in self._items(piece))

    def is_control(self, text: str) -> bool:
        return text in self.ids

    def _items(self, piece: Piece) -> Sequence[str]:
        if isinstance(piece, Pattern):
            return [regex(piece.regex)]
        controls = [text for text in self.ids if text and text in piece]
        if not controls:
            return [quote(piece)] if piece else []
        found = re.split(f"({'|'.join(map(re.escape, sorted(controls, key=len)[::-1]))})", piece)
        return [self._token(part) if part in controls else quote(part) for part in found if part]

    def _token(self, text: str) -> str:
        if (id := self.ids[text]) is not None:
            return f"<[{id}]>"
        if re.fullmatch(r"<[^<>\s\[\]]+>", text):
            return text
        raise InvalidRequest(
            f"tool calls cannot be enforced: the id of the token {text} is not known",
            param="tool_choice",
        )


def quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def regex(source: str) -> str:
    return "/" + re.sub(r"\\?/", r"\\/", source).replace("\n", r"\n") + "/"


def schema(value: object) -> str:
    """A nonterminal for JSON of this schema."""
    return f"%json {json.dumps(value)}"


SAYS_WHAT_IT_HAS = frozenset(
    {"additionalProperties", "patternProperties", "required", "$ref", "allOf", "anyOf", "oneOf"}
)
"""Keywords by which a schema may have properties that it does not list."""


def arguments(tool: Tool) -> str:
    """What a call's arguments must match: the schema to the letter only where it is strict."""
    given = tool.parameters or {}
    wanted = {"type": "object", **(given if tool.strict else relaxed(given))}
    if not given.get("properties") and not given.keys() & SAYS_WHAT_IT_HAS:
        # A function that lists no parameters has none.
        wanted["additionalProperties"] = False
    return schema(wanted)


def relaxed(schema: Mapping[str, object]) -> dict[str, object]:
    """The parts of a schema that can be enforced in any case: structure, and simple bounds."""
    kept: dict[str, object] = {}
    for key, value in schema.items():
        if key in STATED or _is_simple(key, value):
            kept[key] = value
        elif key in MAPS and isinstance(value, Mapping):
            inner = cast("Mapping[str, object]", value)
            kept[key] = {name: _relaxed_inside(child) for name, child in inner.items()}
        elif key in LISTS and isinstance(value, list):
            # Exactly one of several cannot always be told from any of them.
            name = "anyOf" if key == "oneOf" else key
            kept[name] = [_relaxed_inside(child) for child in cast("list[object]", value)]
        elif key in SINGLE and isinstance(value, Mapping | bool):
            kept[key] = _relaxed_inside(cast(object, value))
    return kept


def _relaxed_inside(value: object) -> object:
    if isinstance(value, Mapping):
        return relaxed(cast("Mapping[str, object]", value))
    return value if isinstance(value, bool) else True


def _is_simple(key: str, value: object) -> bool:
    """Whether this is a type or a bound as JSON Schema has them."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return key in BOUNDS or (
            key in LENGTHS and isinstance(value, int) and 0 <= value <= MAX_LENGTH
        )
    if key != "type":
        return False
    types = cast("list[object]", value) if isinstance(value, list) else [value]
    return all(isinstance(name, str) and name in TYPES for name in types)


def up_to(mark: str) -> str:
    """The body of a lazy rule: any text, and at its end the first `mark`."""
    return regex(f"(?s:.*){escape(mark)}")


def escape(text: str) -> str:
    """The text as a regex of llguidance's, which knows fewer escapes than Python's."""
    return re.sub(r"[\\.+*?()|\[\]{}^$#&~-]", r"\\\g<0>", text)
