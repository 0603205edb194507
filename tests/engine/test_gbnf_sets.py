"""Sets of characters: never too small."""

import pytest

from server.engine.gbnf import Reader, Rule
from server.engine.gbnf_sets import OTHERS, Bits, Sets


def bits(characters: str) -> Bits:
    return sum(1 << ord(c) for c in characters)


def sets(text: str) -> Sets:
    return Sets(Reader(text).rules())


@pytest.mark.parametrize(
    ("text", "first", "longer"),
    [
        ('"ab"', "a", ""),
        ("[a-c]", "abc", ""),
        ("[a-c]+", "abc", "abc"),
        ("[a-c]*", "abc", "abc"),
        ("[a-c]{3}", "abc", ""),
        ('"x"?', "x", "x"),
        ('"x" [0-9]*', "x", "0123456789"),
        ('[0-9]? "x"', "0123456789x", ""),
        ('[x]* "xy"', "x", "xy"),
        ('"a" | "ab" | "b"', "ab", "b"),
        ('"a" | "b" [c]?', "ab", "c"),
        ('"a" [d] | "ac"', "a", "acd"),
        ('"" | "b"', "b", "b"),
        ("y y", "12", "12"),
        ('("a" "b")*', "a", "a"),
        ('("a" [b]*)*', "a", "ab"),
        ('("a" ("c" "a"?)?){2}', "a", "ac"),
    ],
)
def test_what_comes_first_and_what_makes_it_longer(text: str, first: str, longer: str) -> None:
    known = sets(f"root ::= {text}\ny ::= [12]?")
    assert known.first(Rule("root")) == bits(first)
    assert known.longer(Rule("root")) == bits(longer)


@pytest.mark.parametrize("text", ["[é]", "[^a]", ".", '"é"', "[a-é]"])
def test_all_beyond_ascii_are_one(text: str) -> None:
    assert sets(f"root ::= {text}").first(Rule("root")) & OTHERS


def test_rules() -> None:
    known = sets('root ::= a "x"\na ::= b?\nb ::= "(" a ")" | c\nc ::= [0-9]*')
    assert known.nullable == {"a", "b", "c"}
    assert known.recursive == {"root", "a", "b"}
    assert known.first(Rule("root")) == bits("(0123456789x")
    assert known.is_plain(Rule("c")) and not known.is_plain(Rule("root"))
    assert known.after((Rule("c"), Rule("c")), bits("!")) == bits("0123456789!")
