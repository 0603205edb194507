"""GBNF grammars let through what they say, and are refused where llama.cpp would die of them."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.engine.gbnf import (
    Chars,
    Choice,
    Expression,
    GbnfError,
    Literal,
    Reader,
    Repeat,
    Rule,
    Sequence,
)
from server.engine.gbnf_lark import to_lark
from server.engine.gbnf_sets import Sets
from server.engine.grammar import Grammars
from server.engine.vocabulary import Vocabulary
from server.errors import InvalidRequest
from server.ipc import Grammar
from tests.engine.fake import FakeTokenizer

GRAMMARS = Grammars(Vocabulary(FakeTokenizer()))


def accepts(grammar: str, text: str) -> bool:
    """Whether the text can be generated, character by character."""
    constraint = GRAMMARS.compile(Grammar("gbnf", grammar))
    due = list(constraint.forced)
    for token in (ord(character) - 32 for character in text):
        if due:
            if due.pop(0) != token:
                return False
        elif constraint.is_complete or not constraint.allows(token):
            return False
        else:
            due = constraint.advance(token)
    return not due and (constraint.is_complete or constraint.allows(0))


ROOMY = 'root ::= (sum "!")+\nsum ::= [0-9]+ ws | "(" sum ")" ws\nws ::= [_!]*'
SUM = 'root ::= part ("+" part)*\npart ::= num | "(" root ")"\nnum ::= [0-9]+'
LIST = 'root ::= "[" (item ("," item)*)? "]"\nitem ::= root | word\nword ::= [A-Z]{1,3}'


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "YES" | "NO"', ["YES", "NO"], ["Y", "YESNO", ""]),
        ('root ::= ""', [""], ["A"]),
        ('root ::= "A"? [^A-Y] .', ["AZ!", "Z!"], ["Z", "AA!"]),
        ("root ::= a-b aB\na-b ::= [A]\naB ::= [B]", ["AB"], ["A"]),
        ("root ::= start\nstart ::= [A]{2,3}", ["AA", "AAA"], ["A", "AAAA"]),
        (SUM, ["1", "12+3", "(1+2)+((3))"], ["+", "1+", "(1", "()"]),
        (ROOMY, ["1!", "(1_)_!2!!"], ["1", "1_"]),
        ('root ::= [A-Z]+ x\nx ::= "B" | "(" x ")"', ["AB", "BB", "ABCB", "A(B)"], ["A", "AC"]),
        (LIST, ["[]", "[A]", "[ABC,[],[X,Y]]"], ["[", "[ABCD]", "[A,]"]),
        ('root ::= "A" | x | (x "C")*\nx ::= "B" x', ["A", ""], ["B", "BC"]),
        ('root ::= "A" root "B" | ""', ["", "AB", "AABB"], ["A", "AAB"]),
        ('root ::= x x\nx ::= "\\x41" | "[" x "]"', ["AA", "[A][[A]]"], ["A", "A]"]),
    ],
)
def test_what_a_grammar_lets_through(grammar: str, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not accepts(grammar, text)] == []
    assert [text for text in bad if accepts(grammar, text)] == []


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ('x ::= "a"', "there is no rule 'root'"),
        ('root ::= x | (y z)*\nx ::= "a"\ny ::= x', "the rule 'z', used in 'root', is not defined"),
        ('root ::= root "a" | "b"', "'root' is left-recursive"),
        ('root ::= a "c"\na ::= b?  c* a', "'a' is left-recursive"),
        ('root ::= a\na ::= "" b\nb ::= (a | "x") "y"', "is left-recursive"),
        ('root ::= "a" root', "'root' never comes to an end"),
        ('root ::= a{1}\na ::= "x" (b | "y" a)\nb ::= "z" b', "'root' never comes to an end"),
    ],
)
def test_what_is_refused(grammar: str, reason: str) -> None:
    extra = '\nb ::= "b"\nc ::= "c"' if "c*" in grammar else ""
    with pytest.raises(GbnfError) as refused:
        to_lark(grammar + extra)
    assert reason in str(refused.value)


def test_recursion_to_the_right_and_in_the_middle_is_none_to_the_left() -> None:
    to_lark('root ::= "a" root | "b"\n')
    to_lark('root ::= a\na ::= "(" a ")" | [x]+')


def ends(rules: dict[str, Expression], expression: Expression, text: str, at: int) -> set[int]:
    """Where matches of an expression that begin at `at` may end, found by trying."""
    match expression:
        case Literal(text=literal):
            return {at + len(literal)} if text.startswith(literal, at) else set()
        case Chars(pattern=pattern):
            python = re.sub(r"\\u\{(\w+)\}", lambda m: f"\\U{int(m[1], 16):08x}", pattern)
            return {at + 1} if re.compile(python).match(text[at : at + 1]) else set()
        case Rule(name=name):
            return ends(rules, rules[name], text, at)
        case Sequence(parts=inside):
            found = {at}
            for part in inside:
                found = {end for start in found for end in ends(rules, part, text, start)}
            return found
        case Choice(options=options):
            return {end for option in options for end in ends(rules, option, text, at)}
        case Repeat(of=of, least=least, most=most):
            now = {at}
            for _ in range(least):
                now = {end for start in now for end in ends(rules, of, text, start)}
            found, n = set(now), least
            while now and (most is None or n < most):
                now = {end for start in now for end in ends(rules, of, text, start)} - found
                found, n = found | now, n + 1
            return found


ITEMS = st.sampled_from(['"A"', '"B"', '"AB"', "[A-B]", "[^B]", "x", "y", '""', "."])
MARKS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}"])
RUNS = st.lists(st.tuples(ITEMS, MARKS).map("".join), min_size=1, max_size=3).map(" ".join)
BODIES = st.lists(RUNS, min_size=1, max_size=3).map(" | ".join)


@given(root=BODIES, x=BODIES, y=BODIES, text=st.text(alphabet="ABC", max_size=6))
@settings(deadline=None, max_examples=300)
def test_what_comes_through_matches(root: str, x: str, y: str, text: str) -> None:
    grammar = f"root ::= {root}\nx ::= {x}\ny ::= {y}"
    try:
        accepted = accepts(grammar, text)
    except InvalidRequest:
        assume(False)
        return
    rules = Reader(grammar).rules()
    matches = len(text) in ends(rules, rules["root"], text, 0)
    assert matches or not accepted
    if not Sets(rules).recursive:
        assert accepted == matches
