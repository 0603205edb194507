"""What of a JSON schema can be enforced, to the letter.

llguidance passes over keywords that it does not know, rounds numbers and dies of some. Here a
schema is walked before it gets there, from the root along `$ref`, and refused where the grammar
would allow what the schema forbids. Deliberate departures, each a part of what was asked for:

* An object that lists its properties and says nothing of others has no others.
* Bounds beyond 2**53 become 2**53, from where on JSON's numbers are not exact.
* Number formats (int32, double) are annotations, as in JSON Schema.
"""

import json
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn, cast
from urllib.parse import unquote

from server.engine.schema_keywords import (
    COMBINERS,
    ENFORCED,
    LISTS,
    MAPS,
    SINGLE,
    Node,
    Unenforceable,
    check,
    escape,
    items,
    types_of,
)  # fmt: skip

MAX_NODES = 20_000
MAX_REFS = 2_000
"""Schemas that others refer to: each may lie deeper than the one before."""


def parse(source: str) -> Node | bool:
    """A schema's text as JSON. Raises Unenforceable."""
    try:
        schema: object = json.loads(source, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Unenforceable("", f"not JSON: {error}") from error
    if not isinstance(schema, dict | bool):
        raise Unenforceable("", "a schema is an object or a boolean")
    return cast("Node | bool", schema)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def prepare(schema: Node | bool) -> Node:
    """The schema in the words that are enforced as they stand. Changes it in place.

    Raises Unenforceable.
    """
    if isinstance(schema, bool):
        if not schema:
            raise Unenforceable("", "nothing matches the schema 'false'")
        return {}
    schema.pop("$id", None)
    schema.pop("id", None)
    walk = _Walk(schema)
    walk.run()
    finite = walk.finite()
    if id(schema) not in finite:
        raise Unenforceable("", "no value of finite length matches the schema")
    for visit in walk.visits.values():
        if id(visit.node) not in finite:
            # Whoever went this way would never come to an end.
            visit.node.clear()
            visit.node["enum"] = []
        elif not visit.merged:
            _close(visit.node)
    return schema


def children(node: Node) -> Iterator[tuple[str, object]]:
    """The schemas inside of one, each with its JSON pointer from there."""
    for key in LISTS:
        value = node.get(key)
        if isinstance(value, list):
            yield from ((f"/{key}/{i}", v) for i, v in enumerate(cast("list[object]", value)))
    for key in MAPS:
        value = node.get(key)
        if isinstance(value, dict):
            for name, child in cast(Node, value).items():
                yield f"/{key}/{escape(name)}", child
    for key in SINGLE:
        if isinstance(node.get(key), dict | bool):
            yield f"/{key}", node[key]


@dataclass
class _Visit:
    """A schema on the way. `merged`: what it says of objects is joined with what others say."""

    pointer: str
    node: Node
    merged: bool


@dataclass
class _Walk:
    """All schemas that are reached from the root, each once."""

    root: Node
    visits: dict[int, _Visit] = field(default_factory=dict[int, _Visit])
    parents: dict[int, list[Node]] = field(default_factory=lambda: defaultdict(list))
    targets: dict[str, object] = field(default_factory=dict[str, object])
    """`$ref` -> what it refers to."""

    def run(self) -> None:
        queue: deque[_Visit] = deque([_Visit("", self.root, False)])
        while queue:
            visit = queue.popleft()
            known = self.visits.get(id(visit.node))
            if known is None:
                if len(self.visits) >= MAX_NODES:
                    raise Unenforceable("", f"more than {MAX_NODES:,} schemas in one")
                self.visits[id(visit.node)] = visit
                check(visit.node, visit.pointer)
            elif known.merged or not visit.merged:
                continue
            else:
                known.merged = True
            queue.extend(self._inside(visit))

    def _inside(self, visit: _Visit) -> Iterator[_Visit]:
        node = visit.node
        merged = visit.merged or _is_mixed(node)
        for pointer, child in self._all_children(visit):
            if isinstance(child, dict):
                self.parents[id(cast(Node, child))].append(node)
                within = merged or pointer.startswith(f"{visit.pointer}/allOf/")
                yield _Visit(pointer, cast(Node, child), within)
            elif not isinstance(child, bool):
                raise Unenforceable(pointer, "a schema is an object or a boolean")

    def _all_children(self, visit: _Visit) -> Iterator[tuple[str, object]]:
        for pointer, child in children(visit.node):
            yield visit.pointer + pointer, child
        if "$ref" in visit.node:
            ref = visit.node["$ref"]
            yield str(ref)[1:], self._resolve(ref, f"{visit.pointer}/$ref")

    def _resolve(self, ref: object, pointer: str) -> object:
        """What a `$ref` refers to."""
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise Unenforceable(pointer, f"{ref!r}: only '#' and '#/...' can be referred to")
        if ref not in self.targets:
            if len(self.targets) >= MAX_REFS:
                raise Unenforceable("", f"more than {MAX_REFS:,} schemas are referred to")
            self.targets[ref] = resolve(self.root, unquote(ref[1:]), pointer)
        return self.targets[ref]

    def finite(self) -> set[int]:
        """Ids of the schemas that some value of finite length matches."""
        found: set[int] = set()
        queue = deque(visit.node for visit in reversed(self.visits.values()))
        while queue:
            node = queue.popleft()
            if id(node) not in found and self._is_finite(node, found):
                found.add(id(node))
                queue.extend(self.parents[id(node)])
        return found

    def _is_finite(self, node: Node, found: set[int]) -> bool:
        def ends(schema: object) -> bool:
            # What matches nothing at all is found, and told better, by llguidance.
            return not isinstance(schema, dict) or id(cast(Node, schema)) in found

        if "$ref" in node and not ends(self.targets[str(node["$ref"])]):
            return False
        if not all(map(ends, items(node, "allOf"))):
            return False
        if not all(any(map(ends, items(node, key))) for key in ("anyOf", "oneOf") if key in node):
            return False
        if "const" in node or "enum" in node:
            return True
        types = types_of(node)
        if types - {"object", "array"}:
            return True
        return ("object" in types and all(map(ends, _required(node)))) or (
            "array" in types and all(map(ends, _least_items(node)))
        )


def resolve(root: Node, path: str, pointer: str) -> object:
    """The schema at a JSON pointer; `pointer` is who refers to it. Raises Unenforceable."""
    found: object = root
    for segment in path.split("/")[1:]:
        key = segment.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal():
            found = dict(enumerate(cast("list[object]", found))).get(int(key))
        else:
            found = cast(Node, found).get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict | bool):
        raise Unenforceable(pointer, f"{path!r} refers to no schema")
    return cast(object, found)


def _required(node: Node) -> Iterator[object]:
    """The schemas of the properties that an object must have."""
    properties = node.get("properties", {})
    for name in items(node, "required"):
        if isinstance(properties, dict) and name in properties:
            yield cast(Node, properties)[str(name)]
        elif "patternProperties" not in node:
            yield node.get("additionalProperties", True)


def _least_items(node: Node) -> Iterator[object]:
    """The schemas of the items that an array must have."""
    least = node.get("minItems", 0)
    listed = items(node, "prefixItems") or items(node, "items")
    if isinstance(least, int):
        yield from listed[:least]
    if isinstance(least, int) and least > len(listed):
        rest = "additionalItems" if isinstance(node.get("items"), list) else "items"
        yield node.get(rest, True)


def _is_mixed(node: Node) -> bool:
    """Whether more than one keyword of a schema may speak of the same property."""
    joins = any(key in node for key in (*COMBINERS, "patternProperties"))
    return joins and len(ENFORCED & node.keys()) > 1


def _close(node: Node) -> None:
    """An object's properties are those that it lists, where it says nothing else."""
    properties = node.get("properties")
    says = {*COMBINERS, "additionalProperties", "patternProperties", "minProperties"}
    if not isinstance(properties, dict) or not properties or says & node.keys():
        return
    if all(name in properties for name in items(node, "required")):
        node["additionalProperties"] = False
