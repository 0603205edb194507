"""What holds for every dialect: it reads what it writes, and its grammar lets just that pass."""

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.chat.dialect import Call, Dialect, Offer, grammar, read_answer
from server.chat.dialects import DIALECTS, dialect_named, dialect_of, generic
from server.chat.lark import Spelling
from server.chat.parser import StreamParser
from server.config import DialectName
from tests.chat.answers import TOOLS, answering, read, run
from tests.chat.matching import accepts, token_ids

ALL = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
CONTROL = pytest.mark.parametrize("control", [True, False], ids=["tokens", "text"])

CITY = Call("get_weather", '{"city": "Köln \\"x\\" {", "days": 3}')
CODE = Call("python", '{"code": "print([1], {})"}')
PLAIN = "Well, {it} <is> [so].\n\nYes: no"

WORDS = st.text(st.sampled_from('abc \n{}[]<>|"\\/:,`=ué'), max_size=12)


def weather_of(city: str) -> Call:
    return Call("get_weather", json.dumps({"city": city}))


CITIES = st.builds(weather_of, WORDS)


def sample(dialect: Dialect) -> list[Call]:
    """Two calls, or one where the dialect has no way to make two."""
    return [CITY, CODE] if dialect.shape.between is not None else [CITY]


def control_of(dialect: Dialect) -> list[str]:
    return sorted(dialect.visible)


def offer(required: bool, spelling: Spelling, parallel: bool = True) -> Offer:
    return Offer(TOOLS, parallel, required, spelling)


def spelling_of(dialect: Dialect, control: bool) -> tuple[Spelling, list[str]]:
    texts = control_of(dialect) if control else []
    return Spelling(token_ids(texts)), texts


@ALL
def test_it_reads_what_it_writes(dialect: Dialect) -> None:
    calls = sample(dialect)
    found = read(dialect, dialect.write(calls))
    assert [(kind, name, json.loads(rest[0])) for kind, name, *rest in found] == [
        ("call", call.name, json.loads(call.arguments)) for call in calls
    ]


@ALL
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_it_reads_what_it_writes_however_it_is_cut(dialect: Dialect, data: st.DataObject) -> None:
    n_most = 3 if dialect.shape.between is not None else 1
    calls = data.draw(st.lists(CITIES, min_size=1, max_size=n_most))
    text = dialect.write(calls)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    known = answering()
    found = run(StreamParser(lambda feed: read_answer(feed, dialect, known)), pieces)
    assert [(item[1], json.loads(item[2])) for item in found] == [
        (call.name, json.loads(call.arguments)) for call in calls
    ]


@ALL
def test_text_is_content(dialect: Dialect) -> None:
    assert read(dialect, dialect.answer_start + PLAIN) == [("content", PLAIN)]


@pytest.mark.parametrize(
    "dialect",
    [dialect for dialect in DIALECTS if not dialect.read_answer],
    ids=lambda dialect: dialect.name,
)
def test_without_tools_nothing_is_a_call(dialect: Dialect) -> None:
    text = dialect.write([CITY])
    assert read(dialect, text, answering(tools=())) == [("content", text)]


@ALL
@given(text=st.text(st.sampled_from('<|>tool_cals/[]{}":,function=name arguments\n`'), max_size=60))
@settings(deadline=None, max_examples=60)
def test_any_text_can_be_read(dialect: Dialect, text: str) -> None:
    read(dialect, text)


@ALL
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_spoilt_calls_can_be_read(dialect: Dialect, data: st.DataObject) -> None:
    text = dialect.write(sample(dialect))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 5)))
    junk = data.draw(st.sampled_from(["", "x", '"', "}", "{", "\n", "<", "]]"]))
    read(dialect, text[:start] + junk + text[end:])


@ALL
@given(junk=st.text(st.sampled_from('{}[]:,<|">a1 \n\\=/'), max_size=14))
@settings(deadline=None, max_examples=60)
def test_arguments_that_are_none_can_be_read(dialect: Dialect, junk: str) -> None:
    read(dialect, dialect.write([Call("get_weather", junk)]))


@ALL
def test_a_call_that_is_cut_off_yields_what_came(dialect: Dialect) -> None:
    text = dialect.write([CITY])
    text = text[: text.index("ln \\")]
    found = read(dialect, text)
    if dialect.name == "bagel_yaml":
        assert found == [("content", text)]
    else:
        assert found == [("call", "get_weather", '{"city": "Kö')]


@ALL
@CONTROL
def test_the_grammar_of_a_required_call(dialect: Dialect, control: bool) -> None:
    spelling, texts = spelling_of(dialect, control)
    lark = grammar(dialect, offer(True, spelling))
    written = dialect.write(sample(dialect))
    assert accepts(lark, written, texts)
    assert not accepts(lark, written.replace("get_weather", "get_whether"), texts)
    assert not accepts(lark, written.replace('"days": 3', '"days": "3"'), texts)
    assert not accepts(lark, dialect.answer_start + PLAIN, texts)


@ALL
@CONTROL
def test_the_grammar_of_a_free_choice(dialect: Dialect, control: bool) -> None:
    spelling, texts = spelling_of(dialect, control)
    lark = grammar(dialect, offer(False, spelling))
    written = dialect.write(sample(dialect))
    assert accepts(lark, written, texts)
    assert accepts(lark, dialect.answer_start + PLAIN, texts)
    assert not accepts(lark, written.replace("get_weather", "get_whether"), texts)
    assert not accepts(lark, written.replace('"days": 3', '"days": "3"'), texts)


@ALL
@CONTROL
def test_the_grammar_of_a_call_or_a_given_answer(dialect: Dialect, control: bool) -> None:
    spelling, texts = spelling_of(dialect, control)
    lark = grammar(dialect, offer(False, spelling)._replace(answer='"yes"'))
    assert accepts(lark, dialect.write(sample(dialect)), texts)
    assert accepts(lark, dialect.answer_start + "yes", texts)
    assert not accepts(lark, dialect.answer_start + "no", texts)


@ALL
def test_the_grammar_of_one_call(dialect: Dialect) -> None:
    lark = grammar(dialect, offer(True, Spelling({}), parallel=False))
    assert accepts(lark, dialect.write([CITY]))
    assert dialect.shape.between is None or not accepts(lark, dialect.write([CITY, CODE]))


@pytest.mark.parametrize(
    "dialect",
    [dialect for dialect in DIALECTS if dialect.shape.mark and not dialect.grammar],
    ids=lambda dialect: dialect.name,
)
def test_text_before_a_call(dialect: Dialect) -> None:
    text = f"Let me look.\n\n{dialect.write([CITY])}"
    assert read(dialect, text) == [("content", "Let me look."), ("call", *CITY)]
    assert accepts(grammar(dialect, offer(False, Spelling({}))), text)


def test_every_dialect_can_be_configured() -> None:
    assert sorted(dialect.name for dialect in DIALECTS) == sorted(get_args(DialectName))
    assert all(dialect_named(dialect.name) is dialect for dialect in DIALECTS)


def test_a_template_that_nobody_knows() -> None:
    assert dialect_of("{{ messages }}") is generic.DIALECT
