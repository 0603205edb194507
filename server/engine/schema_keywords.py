"""The keywords of one JSON schema: which are enforced, and with which values.

llguidance passes over keywords that it does not know, rounds numbers and dies of some. What it
would enforce less than to the letter is refused here.
"""

from collections.abc import Iterator
from typing import cast

Node = dict[str, object]
"""A schema that is an object, and so has keywords."""

COMBINERS = ("$ref", "allOf", "anyOf", "oneOf")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
MAPS = ("properties", "patternProperties")
SINGLE = ("items", "additionalItems", "additionalProperties")

ENFORCED = frozenset(
    {
        *COMBINERS, *BOUNDS, *LISTS, *MAPS, *SINGLE, "const", "enum", "format", "maxItems",
        "maxLength", "maxProperties", "minItems", "minLength", "minProperties", "multipleOf",
        "pattern", "required", "type",
    }
)  # fmt: skip
ANNOTATIONS = frozenset(
    {
        "$anchor", "$comment", "$dynamicAnchor", "$schema", "$vocabulary", "contentEncoding",
        "contentMediaType", "contentSchema", "default", "deprecated", "description",
        "discriminator", "example", "examples", "readOnly", "title", "writeOnly",
    }
)  # fmt: skip
STORES = frozenset({"$defs", "definitions"})
FORMATS = frozenset({"duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"})
DATE = (
    "[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
CLOCK = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
    "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
PATTERNS = {"date": f"^{DATE}$", "time": f"^{CLOCK}$", "date-time": f"^{DATE}T{CLOCK}$"}
"""Formats in our own words, without leap days and leap seconds, which not every year has."""

NUMBER_FORMATS = frozenset({"int32", "int64", "float", "double"})

EXACT = 2**53
"""Integers up to here have no neighbours that are the same number to a JSON parser."""


class Unenforceable(Exception):
    """A schema that allows too much, or nothing, when it is enforced; `pointer` says where."""

    def __init__(self, pointer: str, reason: str):
        super().__init__(f"{pointer}: {reason}" if pointer else reason)


def items(node: Node, key: str) -> list[object]:
    """The list under a keyword; an empty one where there is none."""
    value = node.get(key, [])
    return cast("list[object]", value) if isinstance(value, list) else []


def types_of(node: Node) -> frozenset[str]:
    """The types that a value may have."""
    types = node.get("type", ["null", "boolean", "number", "string", "array", "object"])
    return frozenset(map(str, cast("list[object]", types) if isinstance(types, list) else [types]))


def escape(name: str) -> str:
    """A key as a segment of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def check(node: Node, pointer: str) -> None:
    """One schema's own keywords. Drops those that say nothing."""
    for keyword in list(node):
        if (
            keyword in ANNOTATIONS
            or (keyword.startswith("x-"))
            or (keyword == "uniqueItems" and node[keyword] is False)
        ):
            del node[keyword]
        elif keyword not in ENFORCED and keyword not in STORES:
            raise Unenforceable(
                f"{pointer}/{escape(keyword)}", f"the keyword '{keyword}' cannot be enforced"
            )
    _check_format(node, pointer)
    _check_size(node, pointer)
    for key in BOUNDS:
        _check_bound(node, key, pointer)
    if "multipleOf" in node and not _is_exact(node["multipleOf"]):
        raise Unenforceable(f"{pointer}/multipleOf", _inexact(node["multipleOf"]))
    for key in ("const", "enum"):
        for number in _numbers(node.get(key)):
            if not _is_exact(number):
                raise Unenforceable(f"{pointer}/{key}", _inexact(number))


def _check_format(node: Node, pointer: str) -> None:
    name = node.get("format")
    if name in NUMBER_FORMATS and "string" not in types_of(node):
        del node["format"]
    elif isinstance(name, str) and name in PATTERNS:
        del node["format"]
        if "pattern" in node:
            node["allOf"] = [*items(node, "allOf"), {"type": "string", "pattern": PATTERNS[name]}]
        else:
            node["pattern"] = PATTERNS[name]
    elif name is not None and name not in FORMATS:
        known = ", ".join(sorted({*FORMATS, *PATTERNS}))
        reason = f"the format {name!r} cannot be enforced; those that can: {known}"
        raise Unenforceable(f"{pointer}/format", reason)


def _check_size(node: Node, pointer: str) -> None:
    """A grammar does not see that a property comes twice, so it cannot count different ones."""
    least = node.get("minProperties")
    if not isinstance(least, int) or node.get("additionalProperties") is False:
        return
    n_required = len(set(map(str, items(node, "required"))))
    if least - n_required > 1:
        raise Unenforceable(
            f"{pointer}/minProperties",
            f"{least} properties of which {n_required} are named in 'required': "
            "that many different names cannot be enforced",
        )


def _check_bound(node: Node, key: str, pointer: str) -> None:
    bound = node.get(key)
    if not isinstance(bound, int | float) or isinstance(bound, bool):
        return
    lower = "inimum" in key
    if abs(bound) > EXACT and lower == (bound < 0):
        node[key] = -EXACT if lower else EXACT
    elif not _is_exact(bound):
        raise Unenforceable(f"{pointer}/{key}", _inexact(bound))


def _inexact(number: object) -> str:
    return f"{number!r}: numbers are enforced up to 2**53 and to 15 decimal places"


def _is_exact(number: object) -> bool:
    """Whether llguidance writes this number without rounding it. What is none is not judged."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return True
    if isinstance(number, int):
        return abs(number) <= EXACT
    return abs(number) <= EXACT and float(f"{number:.15g}") == number == round(number, 15)


def _numbers(value: object) -> Iterator[object]:
    """The numbers in a JSON value."""
    queue = [value]
    while queue:
        value = queue.pop()
        if isinstance(value, dict):
            queue.extend(cast(Node, value).values())
        elif isinstance(value, list):
            queue.extend(cast("list[object]", value))
        elif isinstance(value, int | float):
            yield value
