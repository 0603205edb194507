"""Formats as patterns, and what is left of them."""

import re

import pytest

from server.engine.schema_keywords import PATTERNS, Node, Unenforceable, check, escape, types_of


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "2024-02-28 1999-12-31 2024-04-30", "2024-02-29 2024-13-01 2024-04-31 24-01-01"),
        ("time", "00:00:00Z 23:59:59.123456+01:30", "24:00:00Z 12:00:60Z 12:00:00 12:00:00z"),
        ("date-time", "2024-01-31T10:20:30Z", "2024-01-31t10:20:30Z 2024-01-31 2024-01-31T10:20Z"),
    ],
)
def test_dates_and_times(name: str, good: str, bad: str) -> None:
    pattern = re.compile(PATTERNS[name])
    assert all(map(pattern.search, good.split()))
    assert not any(map(pattern.search, bad.split()))


def test_a_format_beside_a_pattern_is_a_second_one() -> None:
    node: Node = {"type": "string", "pattern": "^2", "format": "date", "allOf": [{}]}
    check(node, "")
    second = {"type": "string", "pattern": PATTERNS["date"]}
    assert node == {"type": "string", "pattern": "^2", "allOf": [{}, second]}


@pytest.mark.parametrize("name", ["unknown", "regex", "uri-reference", 7])
def test_formats_that_are_not_enforced(name: object) -> None:
    with pytest.raises(Unenforceable, match="those that can: date, date-time"):
        check({"format": name}, "")


def test_types() -> None:
    assert types_of({"type": "null"}) == {"null"}
    assert types_of({"type": ["null", "array"]}) == {"null", "array"}
    assert len(types_of({})) == 6


def test_escape() -> None:
    assert escape("a/b~c") == "a~1b~0c"
