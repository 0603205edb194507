"""GBNF is read as llama.cpp reads it; what it would die of is an error with a place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.gbnf import Chars, Choice, GbnfError, Literal, Reader, Repeat, Rule, Sequence


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ('"a"', Literal("a")),
        ('"\\n\\t\\r\\"\\\\\\x41\\u00e9\\U0001F600"', Literal('\n\t\r"\\Aé😀')),
        ("[a-z0]", Chars("[\\u{61}-\\u{7a}\\u{30}-\\u{30}]")),
        ("[^\\]-]", Chars("[^\\u{5d}-\\u{5d}\\u{2d}-\\u{2d}]")),
        (".", Chars("(?s:.)")),
        ("x", Rule("x")),
        ("x*", Repeat(Rule("x"), 0, None)),
        ("x+?", Repeat(Repeat(Rule("x"), 1, None), 0, 1)),
        ("x{3}", Repeat(Rule("x"), 3, 3)),
        ("x{3,}", Repeat(Rule("x"), 3, None)),
        ("x{ 1 , 2 }", Repeat(Rule("x"), 1, 2)),
        ("x y-z", Sequence((Rule("x"), Rule("y-z")))),
        ("x | y z", Choice((Rule("x"), Sequence((Rule("y"), Rule("z")))))),
        ("x |\n y # why\n", Choice((Rule("x"), Rule("y")))),
        ("(x\n| y\n)* z", Sequence((Repeat(Choice((Rule("x"), Rule("y"))), 0, None), Rule("z")))),
        ("", Sequence(())),
        ("| x", Choice((Sequence(()), Rule("x")))),
    ],
)
def test_expressions(text: str, expression: object) -> None:
    assert Reader(f"root ::= {text}\n").rules() == {"root": expression}


def test_rules() -> None:
    text = '# a comment\n\nroot ::= a # b\r\na ::=\n  "x"\n'
    assert Reader(text).rules() == {"root": Rule("a"), "a": Literal("x")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('root ::= "a', "unexpected end at line 1, column 12"),
        ("root ::= [a", "unexpected end"),
        ('root ::= "a\n"', "unexpected end"),
        ("root ::= (a", "expected ')'"),
        ("root ::= a)", "unexpected ')' at line 1, column 11"),
        ("root = a", "expected '::='"),
        ("::= a", "expected a rule's name"),
        ("root ::= a\nroot ::= b", "the rule 'root' is defined twice at line 2"),
        ("root ::= a{", "expected {n}"),
        ("root ::= a{1 2}", "expected {n}"),
        ("root ::= a{2,1}", "at least 2 and at most 1"),
        ("root ::= a{2001}", "more than 2,000 repetitions"),
        ("root ::= a{1," + "9" * 5000 + "}", "more than 2,000 repetitions"),
        ("root ::= [z-a]", "the range 'z' to 'a' is empty"),
        ('root ::= "\\q"', "unknown escape \\q"),
        ('root ::= "\\x4"', "unknown escape \\x4"),
        ('root ::= "\\uD800"', "unknown escape \\uD800"),
        ('root ::= "\\UFFFFFFFF"', "unknown escape"),
        ("root ::= <[12]>", "unexpected '<'"),
        ("root ::= " + "(" * 101, "more than 100 parentheses"),
        ("".join(f"r{i} ::= a\n" for i in range(1001)), "more than 1,000 rules"),
    ],
)
def test_what_is_no_gbnf(text: str, reason: str) -> None:
    with pytest.raises(GbnfError) as refused:
        Reader(text).rules()
    assert reason in str(refused.value)


@given(
    st.text(alphabet='ab:=|()[]{}*+?."\\^-,# \n\r123xuU', max_size=60).map(
        lambda t: "root ::= " + t
    )
)
def test_nothing_else_happens(text: str) -> None:
    try:
        rules = Reader(text).rules()
    except GbnfError:
        return
    assert "root" in rules
