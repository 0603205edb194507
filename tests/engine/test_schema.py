"""JSON schemas as they are prepared: what is refused and where, what is changed and what is not."""

import json
from typing import cast

import pytest

from server.engine.schema import MAX_NODES, MAX_REFS, children, parse, prepare
from server.engine.schema_keywords import EXACT, Node, Unenforceable


def prepared(schema: object) -> Node:
    return prepare(parse(json.dumps(schema)))


REFUSED: list[tuple[object, str]] = [
    *[
        (
            {"properties": {"x": {keyword: {}}}},
            f"/properties/x/{keyword}: the keyword '{keyword}' cannot",
        )
        for keyword in (
            "not",
            "if",
            "then",
            "else",
            "contains",
            "minContains",
            "maxContains",
            "dependentRequired",
            "dependentSchemas",
            "dependencies",
            "propertyNames",
            "unevaluatedItems",
            "unevaluatedProperties",
            "$dynamicRef",
            "$recursiveRef",
            "$id",
            "nullable",
            "uniqueItems",
            "maxlength",
        )
    ],
    ({"a/b": 1}, "/a~1b: the keyword 'a/b' cannot"),
    ({"items": {"uniqueItems": True}}, "/items/uniqueItems: "),
    ({"items": [{"not": {}}]}, "/items/0/not: "),
    ({"prefixItems": [{}, {"not": {}}]}, "/prefixItems/1/not: "),
    ({"patternProperties": {"^a": {"not": {}}}}, "/patternProperties/^a/not: "),
    ({"additionalProperties": {"not": {}}}, "/additionalProperties/not: "),
    ({"oneOf": [{}, {"not": {}}]}, "/oneOf/1/not: "),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"not": {}}}}, "/$defs/a/not: "),
    ({"$ref": "http://other/schema"}, "/$ref: 'http://other/schema': only '#'"),
    ({"$ref": "#anchor"}, "/$ref: '#anchor': only"),
    ({"$ref": 1}, "/$ref: 1: only"),
    ({"$ref": "#/$defs/b", "$defs": {"a": {}}}, "/$ref: '/$defs/b' refers to no schema"),
    ({"$ref": "#/title", "title": "a"}, "/$ref: '/title' refers to no schema"),
    ({"properties": {"a": 1}}, "/properties/a: a schema is an object or a boolean"),
    ({"format": "iban"}, "/format: the format 'iban' cannot be enforced"),
    ({"type": "string", "format": "int32"}, "/format: "),
    ({"type": "integer", "format": "even"}, "/format: "),
    ({"const": 2**53 + 1}, "/const: 9007199254740993: numbers are enforced up to 2**53"),
    ({"enum": ["a", [1, {"b": 1.8230687000260783e-15}]]}, "/enum: 1.823"),
    ({"minimum": 2**60}, "/minimum: "),
    ({"maximum": -1e300}, "/maximum: "),
    ({"exclusiveMaximum": 1e-30}, "/exclusiveMaximum: "),
    ({"multipleOf": 1e-20}, "/multipleOf: "),
    ({"minProperties": 2}, "/minProperties: 2 properties of which 0 are named"),
    ({"minProperties": 3, "required": ["a"]}, "/minProperties: "),
    (
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        "no value of finite length",
    ),
    ({"$ref": "#"}, "no value of finite length"),
    ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "no value of finite length"),
    (
        {"type": "array", "prefixItems": [{"$ref": "#"}], "minItems": 1},
        "no value of finite length",
    ),
    ({"anyOf": [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}]}, "no value of finite length"),
    (
        {"type": "object", "additionalProperties": {"$ref": "#"}, "required": ["a"]},
        "no value of finite length",
    ),
    (
        {"anyOf": [{"title": str(i), "type": "null"} for i in range(MAX_NODES)]},
        "more than 20,000 schemas",
    ),
    (
        {
            "anyOf": [{"$ref": f"#/$defs/{i}"} for i in range(MAX_REFS + 1)],
            "$defs": {str(i): {} for i in range(MAX_REFS + 1)},
        },
        "more than 2,000 schemas are referred to",
    ),
]


@pytest.mark.parametrize(("schema", "fault"), REFUSED)
def test_what_cannot_be_enforced_is_refused(schema: object, fault: str) -> None:
    with pytest.raises(Unenforceable) as refused:
        prepared(schema)
    assert str(refused.value).startswith(fault)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {
            "title": "t",
            "description": "d",
            "default": 1,
            "examples": [2],
            "$comment": "c",
            "x-own": {"not": {}},
        },
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "$id": "http://a/b",
            "deprecated": True,
        },
        {"uniqueItems": False},
        {"properties": {"not": {"type": "string"}, "$id": {"const": "if"}}},
        {"const": {"not": {}, "x": [0.1, -5, 1e15, True]}},
        {"$defs": {"unused": {"not": {}}}},
        {"type": "integer", "format": "int64"},
        {"minProperties": 1},
        {"minProperties": 2, "required": ["a"]},
        {"minProperties": 4, "properties": {"a": True}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "items": {"$ref": "#"}},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        {"$ref": "#/properties/a~1b/items/0", "properties": {"a/b": {"items": [True]}}},
        {"$ref": "#/$defs/a%20b", "$defs": {"a b": {}}},
    ],
)
def test_what_is_enforced_or_says_nothing_passes(schema: object) -> None:
    prepared(schema)


def test_ways_that_never_end_are_closed() -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#/anyOf/0"}}, "required": ["a"]}
    schema = prepared({"anyOf": [endless, {"type": "null"}]})
    assert schema == {"anyOf": [{"enum": []}, {"type": "null"}]}


def test_false_matches_nothing() -> None:
    with pytest.raises(Unenforceable, match="nothing matches"):
        prepared(False)


def test_annotations_are_dropped() -> None:
    schema = {"title": "t", "properties": {"title": {"description": "d", "type": "null"}}}
    assert prepared(schema)["properties"] == {"title": {"type": "null"}}


def test_bounds_are_moved_to_where_numbers_are_exact() -> None:
    assert prepared({"minimum": -(2**63), "exclusiveMaximum": 1e300}) == {
        "minimum": -EXACT,
        "exclusiveMaximum": EXACT,
    }


def is_closed(schema: Node) -> bool:
    return schema.get("additionalProperties") is False


LISTING: Node = {"type": "object", "properties": {"a": {}}}


LISTED: list[tuple[object, bool]] = [
    (LISTING, True),
    ({**LISTING, "required": ["a"]}, True),
    ({**LISTING, "required": ["b"]}, False),
    ({**LISTING, "additionalProperties": True}, False),
    ({**LISTING, "patternProperties": {"x": {}}}, False),
    ({**LISTING, "minProperties": 1}, False),
    ({**LISTING, "allOf": [{}]}, False),
    ({**LISTING, "$ref": "#/$defs/a", "$defs": {"a": {}}}, False),
    ({"type": "object"}, False),
    ({"type": "object", "properties": {}}, False),
]


@pytest.mark.parametrize(("schema", "closed"), LISTED)
def test_an_object_has_the_properties_that_it_lists(schema: object, closed: bool) -> None:
    assert is_closed(prepared(schema)) == closed


JOINED: list[tuple[object, str, bool]] = [
    ({"properties": {"p": LISTING}}, "/properties/p", True),
    ({"anyOf": [LISTING, {"type": "null"}]}, "/anyOf/0", True),
    ({"anyOf": [LISTING], "properties": {"q": {}}}, "/anyOf/0", False),
    ({"allOf": [LISTING, {}]}, "/allOf/0", False),
    ({"allOf": [{"properties": {"p": LISTING}}]}, "/allOf/0/properties/p", False),
    ({"properties": {"p": LISTING}, "patternProperties": {"p": {}}}, "/properties/p", False),
    ({"$ref": "#/$defs/d", "$defs": {"d": LISTING}}, "/$defs/d", True),
    (
        {
            "properties": {"p": {"$ref": "#/$defs/d"}, "q": {"allOf": [{"$ref": "#/$defs/d"}]}},
            "$defs": {"d": LISTING},
        },
        "/$defs/d",
        False,
    ),
]


@pytest.mark.parametrize(("whole", "path", "closed"), JOINED)
def test_what_is_joined_with_others_stays_open(whole: object, path: str, closed: bool) -> None:
    found: object = prepared(whole)
    for key in path.split("/")[1:]:
        inside = cast("list[object] | Node", found)
        found = inside[int(key)] if isinstance(inside, list) else inside[key]
    assert is_closed(cast(Node, found)) == closed


def test_children_have_pointers() -> None:
    schema: Node = {
        "items": {},
        "properties": {"a/b~": {}},
        "anyOf": [{}, True],
        "const": {"items": {}},
    }
    assert [pointer for pointer, _ in children(schema)] == [
        "/anyOf/0",
        "/anyOf/1",
        "/properties/a~1b~0",
        "/items",
    ]
