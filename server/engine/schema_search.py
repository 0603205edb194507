"""Where in a JSON schema the fault lies that llguidance tells of without a place."""

import json
import time
from collections.abc import Callable, Iterator
from typing import cast
from urllib.parse import quote, unquote

from server.engine.schema import children, resolve
from server.engine.schema_keywords import STORES, Node, Unenforceable, escape

SEARCH_S = 1.0
"""What the search may take; where it has come by then is told."""

PLACE = "/$defs/it"
"""Where the whole schema is put in those that are tried."""

Compile = Callable[[Node], str]
"""Tries a schema; the error, or an empty text."""


def find_fault(root: Node, error: str, compile: Compile) -> Unenforceable:
    """The innermost schema in `root` that has the same error, and its keyword if it is one's."""
    until = time.monotonic() + SEARCH_S
    # The references point into the root, which is put one level down.
    moved = cast(Node, json.loads(json.dumps(root).replace('"$ref": "#', f'"$ref": "#{PLACE}')))

    def fails(pointer: str) -> str:
        if time.monotonic() > until:
            return ""
        return compile({"$defs": {"it": moved}, "$ref": f"#{PLACE}{quote(pointer)}"})

    pointer, node, been = "", moved, {""}
    while True:
        inside = [(p, n) for p, n in _inside(moved, pointer, node) if p not in been]
        found = ((p, n, e) for p, n in inside if _kind(e := fails(p)) == _kind(error))
        first = next(found, None)
        if first is None:
            break
        pointer, node, error = first
        been.add(pointer)
    for keyword in [k for k in node if k not in STORES]:
        value = node.pop(keyword)
        cured = time.monotonic() < until and not fails(pointer)
        node[keyword] = value
        if cured:
            return Unenforceable(f"{pointer}/{escape(keyword)}", error)
    return Unenforceable(pointer, error)


def _inside(moved: Node, pointer: str, node: Node) -> Iterator[tuple[str, Node]]:
    """The schemas inside of one and the one that it refers to, with their pointers."""
    for below, child in children(node):
        if isinstance(child, dict):
            yield pointer + below, cast(Node, child)
    if "$ref" in node:
        target = unquote(str(node["$ref"]).removeprefix(f"#{PLACE}"))
        found = resolve(moved, target, pointer)
        if isinstance(found, dict):
            yield target, cast(Node, found)


def _kind(error: str) -> str:
    """Errors about the same fault begin alike, however deep it lies."""
    return error.split("\n")[0].split(":")[0]
