"""The search for the keyword that llguidance does not name."""

import pytest

from server.engine import schema_search
from server.engine.schema_keywords import Node
from server.engine.schema_search import find_fault


def lame(schema: Node) -> str:
    """Cannot walk: fails where `bad` is anywhere in what the schema refers to."""
    ref = str(schema["$ref"]).removeprefix("#/$defs/it")
    found: object = schema["$defs"]["it"]  # pyright: ignore
    for key in ref.split("/")[1:]:
        found = found[int(key)] if isinstance(found, list) else found[key]  # pyright: ignore
    return "Bad: here" if "bad" in str(found) else ""  # pyright: ignore


def test_the_innermost_schema_and_its_keyword_are_found() -> None:
    schema: Node = {
        "properties": {"a": {"type": "null"}, "b": {"items": {"type": "null", "enum": "bad"}}}
    }
    assert str(find_fault(schema, "Bad: x", lame)) == "/properties/b/items/enum: Bad: here"


def test_two_faults_leave_their_schema() -> None:
    schema: Node = {"items": {"enum": "bad", "const": "bad"}}
    assert str(find_fault(schema, "Bad: x", lame)) == "/items: Bad: here"


def test_errors_of_another_kind_are_not_followed() -> None:
    schema: Node = {"items": {"enum": "bad"}}
    assert str(find_fault(schema, "Large: x", lame)) == "/items: Large: x"


def test_the_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_search, "SEARCH_S", 0.0)
    assert str(find_fault({"items": {"enum": "bad"}}, "Bad: x", lame)) == "Bad: x"
