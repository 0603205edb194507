"""Grammars compile or are refused, and what their masks let through matches them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import jsonschema
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.engine import llama
from server.engine.engine import Engine
from server.engine.grammar import MAX_RULES, MAX_SOURCE, Constraint, Grammars
from server.engine.kv import KVCells
from server.engine.llama import backend
from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.engine_config import EngineConfig
from server.errors import InvalidRequest
from server.ipc import Delta, Event, Failed, Finished, GenerateRequest, Grammar, Text
from server.sampling import SamplingParams
from tests.engine.fake import GREEDY, FakeContext, FakeTokenizer

PARAM = "response_format.json_schema.schema"
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 1, "maxItems": 3},
        "home": {
            "type": "object",
            "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
            "required": ["zip"],
        },
    },
    "required": ["name", "age", "tags", "home"],
}


@pytest.fixture(scope="module")
def vocabulary(model_path: Path) -> Iterator[Vocabulary]:
    """The real model's."""
    log = llama.backend_init()
    with llama.Model(str(model_path), EngineConfig(), 0, log, lambda _: None) as model:
        yield Vocabulary(model.vocabulary)
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


@pytest.fixture(scope="module")
def grammars(vocabulary: Vocabulary) -> Grammars:
    return Grammars(vocabulary)


@pytest.fixture(scope="module")
def small() -> Grammars:
    """Of the vocabulary of 64 characters."""
    return Grammars(Vocabulary(FakeTokenizer()))


RULES = "".join(f"r{i} ::= r{i + 1} [A]\n" for i in range(1, 990))
DEEP = f"root ::= r1\n{RULES}r990 ::= [A]"


def schema(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value), PARAM)


def spell(vocabulary: Vocabulary, text: str) -> list[int]:
    return vocabulary.raw.tokenize(text, False, False).tolist()


def accepts(grammars: Grammars, vocabulary: Vocabulary, grammar: Grammar, text: str) -> bool:
    """Whether a text can be generated, whole, token by token."""
    constraint = grammars.compile(grammar)
    tokens = spell(vocabulary, text)
    due = constraint.forced
    for token in tokens:
        if due:
            if token != due[0]:
                return False
            due = due[1:]
        elif constraint.is_complete or not constraint.allows(token):
            return False
        else:
            due = constraint.advance(token)
    return not due and (constraint.is_complete or any(map(constraint.allows, vocabulary.ends)))


def walk(
    vocabulary: Vocabulary, constraint: Constraint, seed: int, limit: int = 150
) -> tuple[bytes, bool]:
    """What a model of random mind would write, and whether it came to an end."""
    generator = np.random.default_rng(seed)
    written = list(constraint.forced)
    while len(written) < limit and not constraint.is_complete:
        logits = generator.normal(size=vocabulary.n_tokens).astype(np.float32)
        # Long answers end sooner.
        logits[vocabulary.ends] += len(written) / 10
        constraint.mask(logits)
        token = int(logits.argmax())
        assert constraint.allows(token)
        if token in vocabulary.end_set:
            return b"".join(map(vocabulary.piece, written)), True
        written += [token, *constraint.advance(token)]
    return b"".join(map(vocabulary.piece, written)), constraint.is_complete


def test_json_is_written_without_spaces(grammars: Grammars, vocabulary: Vocabulary) -> None:
    compact = '{"name":"Ann","age":7,"tags":["red"],"home":{"zip":"01234"}}'
    assert accepts(grammars, vocabulary, schema(PERSON), compact)
    assert not accepts(grammars, vocabulary, schema(PERSON), compact.replace(":7", ": 7"))
    assert not accepts(grammars, vocabulary, schema(PERSON), compact.replace("7", "121"))
    assert not accepts(grammars, vocabulary, schema(PERSON), compact[:-1])
    assert not accepts(grammars, vocabulary, schema(PERSON), compact + " ")


def test_what_must_follow_is_forced_in_the_tokens_of_the_model(
    grammars: Grammars, vocabulary: Vocabulary
) -> None:
    constraint = grammars.compile(schema(PERSON))
    text = b"".join(map(vocabulary.piece, constraint.forced))
    # What comes next could be part of a longer token with the quotation mark.
    assert text == b'{"name'
    assert constraint.forced == spell(vocabulary, text.decode())
    assert not constraint.is_complete
    (opening,) = spell(vocabulary, '":"')
    assert constraint.advance(opening) == []
    (ann,) = spell(vocabulary, "Ann")
    assert constraint.advance(ann) == []
    (closing,) = spell(vocabulary, '","')
    forced = constraint.advance(closing)
    assert b"".join(map(vocabulary.piece, forced)) == b'age":'


def test_a_constant_is_complete_from_the_start(grammars: Grammars, vocabulary: Vocabulary) -> None:
    constraint = grammars.compile(schema({"const": "hello world"}))
    assert constraint.is_complete
    assert b"".join(map(vocabulary.piece, constraint.forced)) == b'"hello world"'


def test_a_mask_leaves_what_is_allowed_and_nothing_else(
    grammars: Grammars, vocabulary: Vocabulary
) -> None:
    constraint = grammars.compile(Grammar("regex", "(yes|no)!"))
    logits = np.zeros(vocabulary.n_tokens, np.float32)
    constraint.mask(logits)
    allowed = {t for t in range(vocabulary.n_tokens) if logits[t] == 0}
    assert {vocabulary.piece(t) for t in allowed} == {b"y", b"n", b"ye", b"no", b"yes"}
    assert all(constraint.allows(t) == (t in allowed) for t in range(0, vocabulary.n_tokens, 7))


def test_the_end_is_allowed_where_the_grammar_may_end(
    grammars: Grammars, vocabulary: Vocabulary
) -> None:
    constraint = grammars.compile(Grammar("regex", "a+"))
    assert not any(map(constraint.allows, vocabulary.ends))
    constraint.advance(constraint.forced[0] if constraint.forced else spell(vocabulary, "a")[0])
    logits = np.zeros(vocabulary.n_tokens, np.float32)
    constraint.mask(logits)
    assert all(logits[end] == 0 and constraint.allows(end) for end in vocabulary.ends)
    assert not constraint.is_complete


def test_control_tokens_have_a_place_in_lark(grammars: Grammars, vocabulary: Vocabulary) -> None:
    constraint = grammars.compile(Grammar("lark", "start: <repo_name> /[a-z]+/"))
    assert constraint.forced == [vocabulary.special["<repo_name>"]]
    # The same text is not the token, and the token is no text.
    text = grammars.compile(Grammar("lark", 'start: "<repo_name>" /[a-z]+/'))
    assert vocabulary.special["<repo_name>"] not in text.forced
    assert b"".join(map(vocabulary.piece, text.forced)) == b"<repo_name>"


def test_the_same_grammar_is_compiled_once(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammars = Grammars(vocabulary)
    first = grammars.compile(schema(PERSON))
    monkeypatch.setattr(grammars, "_compile", None)
    second = grammars.compile(Grammar("json_schema", json.dumps(PERSON), "tools"))
    # Each has its own place in it.
    (opening,) = spell(vocabulary, '":"')
    first.advance(opening)
    assert second.forced == first.forced
    assert second.allows(opening) and not first.allows(opening)


# JSON schemas, and values to hold what they let through against.

NAMES = st.sampled_from(["a", "b", "name", "a/b", "~", "é"])
CONSTANTS = st.sampled_from(
    ["", "x", "né", 'q"', 0, -7, 2**53, 1.5, 0.001, True, None, [1], {"k": 2}]
)
NUMBERS = st.integers(-300, 300) | st.sampled_from([0.5, -2.25, 1e-3])
STRINGS = st.fixed_dictionaries(
    {"type": st.just("string")},
    optional={"minLength": st.integers(0, 3), "maxLength": st.integers(3, 6)},
)
PATTERNS = st.sampled_from(["^[a-z]{2,4}$", "x", "^\\d+-\\w$", "^(?:ab|c)*$"]).map(
    lambda pattern: {"type": "string", "pattern": pattern}
)
FORMATS = st.sampled_from(
    ["date", "time", "date-time", "duration", "ipv4", "ipv6", "uuid", "email"]
).map(lambda name: {"type": "string", "format": name})
RANGES = st.tuples(st.sampled_from(["number", "integer"]), NUMBERS, NUMBERS).map(
    lambda r: {"type": r[0], "minimum": min(r[1], r[2]), "maximum": max(r[1], r[2])}
)
LEAVES: st.SearchStrategy[object] = (
    STRINGS
    | PATTERNS
    | FORMATS
    | RANGES
    | st.sampled_from([{"type": t} for t in ("null", "boolean", "integer", "number")])
    | CONSTANTS.map(lambda value: {"const": value})
    | st.lists(CONSTANTS, min_size=1, max_size=3).map(lambda values: {"enum": values})
    | st.just({"$ref": "#/$defs/shared"})
)


def _objects(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.dictionaries(NAMES, inner, min_size=1, max_size=3).flatmap(
        lambda properties: st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.just(properties),
                "required": st.lists(st.sampled_from(sorted(properties)), unique=True),
            },
            optional={"additionalProperties": st.just(False) | st.just(True) | inner},
        )
    )


def _arrays(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.fixed_dictionaries(
        {"type": st.just("array"), "items": inner},
        optional={
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(2, 3),
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
        },
    )


def _choices(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    several = st.lists(inner, min_size=1, max_size=3)
    return several.map(lambda options: {"anyOf": options}) | st.lists(
        inner, min_size=1, max_size=2
    ).map(lambda parts: {"allOf": parts})


SCHEMAS: st.SearchStrategy[object] = st.recursive(
    LEAVES, lambda inner: _objects(inner) | _arrays(inner) | _choices(inner), max_leaves=6
)


@given(root=SCHEMAS, shared=LEAVES, seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_what_the_masks_let_through_is_valid(
    vocabulary: Vocabulary, grammars: Grammars, root: object, shared: object, seed: int
) -> None:
    assume(shared != {"$ref": "#/$defs/shared"})
    whole = {**cast("dict[str, object]", root), "$defs": {"shared": shared}}
    try:
        constraint = grammars.compile(schema(whole))
    except InvalidRequest:
        assume(False)
        return
    text, ended = walk(vocabulary, constraint, seed)
    if ended:
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        jsonschema.validate(
            json.loads(text), whole, jsonschema.Draft202012Validator, format_checker=checker
        )


@given(
    value=CONSTANTS | st.floats(-1e6, 1e6).map(lambda x: round(x, 6)) | st.integers(-(2**53), 2**53)
)
@settings(max_examples=60, deadline=None)
def test_a_constant_is_written_as_it_is(
    vocabulary: Vocabulary, grammars: Grammars, value: object
) -> None:
    constraint = grammars.compile(schema({"const": value}))
    text, ended = walk(vocabulary, constraint, 0)
    assert ended
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (
            {"type": "object", "properties": {"age": {"not": {}}}},
            "/properties/age/not: the keyword 'not' cannot be enforced",
        ),
        ({"properties": {"a/b": {"format": "iban"}}}, "/properties/a~1b/format: the format 'iban'"),
        (
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"pattern": "a(?=b)"}}]},
            "/anyOf/1/items/pattern: regex parse error",
        ),
        (
            {
                "$defs": {"x": {"items": {"type": "foo"}}},
                "properties": {"a": {"$ref": "#/$defs/x"}},
            },
            "/$defs/x/items/type: Invalid type: foo",
        ),
        (
            {"oneOf": [{"type": "integer"}, {"type": "number"}]},
            "/oneOf: oneOf constraints are not supported",
        ),
        (
            {"properties": {"a": {"type": "string", "minLength": -1}}},
            "/properties/a/minLength: Expected positive integer",
        ),
        (
            {"type": "array", "minItems": 3, "maxItems": 2},
            "Unsatisfiable schema: minItems (3) is greater than maxItems (2)",
        ),
        (
            {"type": "object", "required": ["x"], "additionalProperties": False},
            "Unsatisfiable schema",
        ),
        ({"type": "string", "pattern": "[a&&b]"}, "Unsatisfiable schema: Regex is empty"),
        ({"enum": []}, "/enum: Unsatisfiable schema"),
        (
            {
                "type": "object",
                "properties": {"a": True, "b": True},
                "additionalProperties": False,
                "maxProperties": 1,
                "minProperties": 0,
                "patternProperties": {"^x": True},
            },
            "min/maxProperties only supported",
        ),
        ({"patternProperties": {"^a": True, "^ab": True}}, "not disjoint"),
        ({"type": "string", "const": "\ud800"}, "/const: unexpected end of hex escape"),
    ],
)
def test_a_schema_is_refused_by_its_keyword(small: Grammars, value: object, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        small.compile(schema(value))
    assert refused.value.message.startswith(f"{PARAM}: ")
    assert reason in refused.value.message
    assert refused.value.param == PARAM


@pytest.mark.parametrize(
    ("syntax", "source", "reason"),
    [
        ("json_schema", "{", "not JSON"),
        ("json_schema", "[]", "a schema is an object or a boolean"),
        ("json_schema", "false", "nothing matches"),
        ("json_schema", '{"minimum": NaN}', "NaN"),
        ("json_schema", '{"items":' * 200 + "{}" + "}" * 200, "recursion limit"),
        ("json_schema", "[" * 100_000, "not JSON"),
        ("regex", "a(b", "unclosed group"),
        ("regex", "a(?=b)", "look-around"),
        ("regex", "[a&&b]", "nothing matches it"),
        ("regex", "(" * 5_000 + "a" + ")" * 5_000, "regex"),
        ("regex", "a" * (MAX_SOURCE + 1), "1,048,577 characters, at most 1,048,576"),
        ("gbnf", 'x ::= "a"', "there is no rule 'root'"),
        ("gbnf", 'root ::= root "a" | "b"', "'root' is left-recursive"),
        ("gbnf", "root ::= x", "the rule 'x', used in 'root', is not defined"),
        ("gbnf", 'root ::= "a', "line 1, column 12"),
        ("gbnf", "root ::= []", "nothing matches it"),
        ("gbnf", DEEP, "nested too deeply"),
        ("lark", 'x: "a"', "no start rule"),
        ("lark", "start: x", "unknown name"),
        ("lark", "start: x\nx: x", "nothing matches it"),
        ("lark", '{"grammars": []}', "does not begin with '{'"),
        ("lark", "start: " + "(" * 500 + '"a"' + ")" * 500, "too deeply nested"),
        (
            "lark",
            "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(MAX_RULES + 1)),
            "1,002 rules",
        ),
        ("lark", 'start: %json {"properties": {"a": {"not": {}}}}', "/properties/a/not"),
        ("lark", 'start: %json {"not": {}, "x-guidance": {"lenient": true}}', "/not"),
        ("lark", 'start: %json {"type"', 'failed to parse "%json"'),
    ],
)
def test_a_grammar_is_refused_with_the_reason(
    small: Grammars, syntax: str, source: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        small.compile(Grammar(syntax, source, "grammar"))  # pyright: ignore[reportArgumentType]
    assert refused.value.message.startswith("grammar: ")
    assert reason in refused.value.message
    assert len(refused.value.message) < 800
    assert refused.value.param == "grammar"


def test_json_in_lark_is_checked_and_compact(grammars: Grammars, vocabulary: Vocabulary) -> None:
    lark = Grammar(
        "lark",
        'start: "a" one "b" two\n'
        'one: %json {"type": "object"}\n'
        'two: %json {"$ref": "#/$defs/x", "$defs": {"x": {"const": 1}}}',
    )
    assert accepts(grammars, vocabulary, lark, 'a{"x":[1,2]}b1')
    assert not accepts(grammars, vocabulary, lark, 'a{"x": [1,2]}b1')


@pytest.mark.parametrize(
    "value",
    [
        {
            "$ref": "#/$defs/a0",
            "$defs": {
                f"a{i}": {
                    "type": "object",
                    "properties": {
                        "p": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}, {"type": "null"}]}
                    },
                }
                if i < 1990
                else {}
                for i in range(1991)
            },
        },
        {"const": -(2**52)},
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**9},
        {"enum": [f"value {i}" for i in range(20_000)]},
    ],
    ids=["deep", "large", "i64", "long", "many", "enum"],
)
def test_what_is_hard_neither_kills_nor_stalls(small: Grammars, value: object) -> None:
    try:
        constraint = small.compile(schema(value))
    except InvalidRequest:
        return
    constraint.mask(np.zeros(64, np.float32))


def test_a_panic_is_an_error_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def panic(source: str) -> str:
        raise Panic(source)

    monkeypatch.setattr("server.engine.grammar.to_lark", panic)
    with pytest.raises(InvalidRequest, match="grammar: the grammar cannot be compiled"):
        Grammars(Vocabulary(FakeTokenizer())).compile(Grammar("gbnf", "root ::= x", "grammar"))


def test_what_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Grammars(Vocabulary(FakeTokenizer()))
    monkeypatch.setattr("server.engine.grammar.COMPILE_S", 0.0)
    with pytest.raises(InvalidRequest, match="takes more than 0 s"):
        small.compile(Grammar("regex", "(B{1000}){1000}"))


def test_forced_text_is_bounded(small: Grammars) -> None:
    with pytest.raises(InvalidRequest, match="grammar: "):
        small.compile(Grammar("regex", "(A{1000}){1000}", "grammar"))


def test_a_constraint_that_fails_says_so(small: Grammars) -> None:
    constraint = small.compile(Grammar("regex", "[AB]{5}"))
    with pytest.raises(InvalidRequest, match="cannot be followed"):
        constraint.advance(ord("Z") - 32)
    with pytest.raises(InvalidRequest, match="cannot be followed"):
        constraint.mask(np.zeros(64, np.float32))


class Tight:
    """An engine over the context that notices every wrong cell, and answers by grammar."""

    def __init__(self, grammars: Grammars, context: FakeContext | None = None):
        self.context = context or FakeContext(n_ctx=64)
        self.vocabulary = Vocabulary(FakeTokenizer())
        self.grammars = grammars
        self.events: list[Event] = []
        unified = self.context.n_cells is not None
        self.kv = KVCells(self.context, unified, self.context.can_trim, 10_000)
        self.engine = Engine(
            self.context, self.vocabulary, self.kv, 200, 1000, 15, not unified, self.events.extend
        )

    def submit(
        self,
        id: int,
        regex: str | None,
        n: int = 40,
        sampling: SamplingParams = GREEDY,
        logprobs: int | None = None,
        stop: tuple[str, ...] = (),
    ) -> None:
        grammar = Grammar("regex", regex) if regex is not None else None
        request = GenerateRequest(
            (id + 1, 5, 9), sampling, n, stop, grammar=grammar, logprobs=logprobs
        )
        constraint = self.grammars.compile(grammar) if grammar else None
        self.engine.add(Sequence(id, request, self.vocabulary, self.context.n_ctx, constraint))

    def run(self) -> None:
        while not self.engine.idle:
            self.engine.step()
            self.kv.check()
        self.engine.check()

    def answer(self, id: int) -> tuple[str, Finished]:
        mine = [e for e in self.events if e.id == id]
        last = mine[-1]
        assert isinstance(last, Finished), last
        assert last.n_completion == sum(e.n_tokens for e in mine if isinstance(e, Delta | Finished))
        return "".join(e.text for e in mine if isinstance(e, Delta | Finished)), last


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        SamplingParams(seed=1),
        SamplingParams(top_k=0, top_p=1, min_p=0, seed=2),
        SamplingParams(temperature=0, min_tokens=30),
        SamplingParams(ignore_eos=True, seed=3),
        SamplingParams(typical_p=0.3, seed=4),
        SamplingParams(mirostat=2, seed=5),
        SamplingParams(temperature=0, repeat_penalty=1.5),
    ],
)
def test_answers_match(small: Grammars, sampling: SamplingParams) -> None:
    bench = Tight(small)
    for id in range(3):
        bench.submit(id, "(ABC|DEF)+-[0-9]{3}-XYZ", sampling=sampling)
    bench.submit(3, None)
    bench.run()
    for id in range(3):
        text, last = bench.answer(id)
        assert last.reason == "length" or re.fullmatch("(ABC|DEF)+-[0-9]{3}-XYZ", text)


def test_forced_tokens_take_no_step_of_their_own(small: Grammars) -> None:
    bench = Tight(small)
    bench.submit(0, "ABCDEFGHIJ[0-9]KLMNOPQRST")
    bench.run()
    text, last = bench.answer(0)
    assert re.fullmatch("ABCDEFGHIJ[0-9]KLMNOPQRST", text)
    assert last.reason == "stop" and last.n_completion == 21
    # The prompt, and what is forced before the digit; the rest is never forwarded.
    assert len(bench.context.batches) == 2


def test_neighbours_are_not_disturbed(small: Grammars) -> None:
    alone = Tight(small)
    alone.submit(3, None)
    alone.run()
    bench = Tight(small)
    bench.submit(0, "ABCDEFGHIJ[0-9]KLMNOPQRST[A-Z]+")
    bench.submit(3, None)
    bench.run()
    assert bench.answer(3)[0] == alone.answer(3)[0]


@pytest.mark.parametrize("n_cells", [None, 200])
def test_neighbours_do_not_wait_for_forced_tokens(small: Grammars, n_cells: int | None) -> None:
    bench = Tight(small, FakeContext(n_cells=n_cells))
    bench.submit(0, "[0-9]ABCDEFGHIJ[0-9]KLM")
    bench.submit(3, None)
    bench.run()
    assert re.fullmatch("[0-9]ABCDEFGHIJ[0-9]KLM", bench.answer(0)[0])
    steps = bench.context.batches[1:]
    spans = {slots.count(slot) for slots in steps for slot in set(slots) if len(set(slots)) > 1}
    # Uneven rows are computed one after the other in split streams only.
    assert spans == ({1} if n_cells is None else {1, 11})


@pytest.mark.parametrize("n", range(1, 22))
def test_forced_tokens_stop_at_the_limit(small: Grammars, n: int) -> None:
    bench = Tight(small)
    bench.submit(0, "ABCDEFGHIJ[0-9]KLMNOPQRST", n)
    bench.run()
    text, last = bench.answer(0)
    assert len(text) == n == last.n_completion
    assert last.reason == ("stop" if n == 21 else "length")


def test_a_stop_string_ends_forced_text(small: Grammars) -> None:
    bench = Tight(small)
    bench.submit(0, "ABCDEFGHIJ[0-9]KLMNOPQRST", stop=("LMN",))
    bench.run()
    text, last = bench.answer(0)
    assert re.fullmatch("ABCDEFGHIJ[0-9]K", text)
    assert last.reason == "stop"


def test_scores_of_forced_tokens_are_the_models(small: Grammars) -> None:
    bench = Tight(small)
    bench.submit(0, "ABC[0-9]DE[A-Z]FG", logprobs=2)
    bench.submit(1, "ABC[0-9]DE[A-Z]FG")
    bench.run()
    text, last = bench.answer(0)
    assert last.reason == "stop" and re.fullmatch("ABC[0-9]DE[A-Z]FG", text)
    scores = [
        s for e in bench.events if e.id == 0 and isinstance(e, Delta | Finished) for s in e.scores
    ]
    assert b"".join(s.piece for s in scores) == text.encode()
    assert all(s.logprob is not None and s.logprob < 0 and len(s.top) == 2 for s in scores)


def test_a_sequence_that_waits_for_cells_goes_on_where_it_was(small: Grammars) -> None:
    bench = Tight(small, FakeContext(n_slots=3, n_cells=40, n_ctx=40))
    for id in range(3):
        bench.submit(id, "(ABCDEFGH[0-9]){2}XY", 30)
    bench.run()
    for id in range(3):
        assert re.fullmatch("(ABCDEFGH[0-9]){2}XY", bench.answer(id)[0])


def test_a_grammar_that_fails_ends_its_sequence_alone(small: Grammars) -> None:
    bench = Tight(small)
    bench.submit(0, "[A-Z]+0")
    bench.submit(1, "[A-Z]{9}0")
    broken = bench.engine.scheduler.waiting[0]
    bench.engine.step()
    with pytest.raises(InvalidRequest):
        next(broken.following(ord("?") - 32))
    bench.run()
    failed = [e for e in bench.events if e.id == 0][-1]
    assert isinstance(failed, Failed) and isinstance(failed.error, InvalidRequest)
    assert re.fullmatch("[A-Z]{9}0", bench.answer(1)[0])


def test_what_the_model_has_no_tokens_for_is_not_begun(small: Grammars) -> None:
    with pytest.raises(InvalidRequest, match="nothing matches it that the model has tokens for"):
        small.compile(Grammar("regex", "\U00048b65"))
    bench = Tight(small)
    bench.submit(0, "\U00048b65B|AC")
    bench.run()
    assert bench.answer(0)[0] == "AC"


def test_what_cannot_be_gone_on_with_is_the_requests_fault(small: Grammars) -> None:
    bench = Tight(small)
    bench.submit(0, "[AB]CD\U00048b65E")
    bench.submit(1, "[A-Z]{9}0")
    bench.run()
    events = [e for e in bench.events if e.id == 0]
    assert "".join(e.text for e in events if isinstance(e, Delta)) in ("ACD", "BCD")
    failed = events[-1]
    assert isinstance(failed, Failed) and isinstance(failed.error, InvalidRequest)
    assert "the model has no token for what must come next" in failed.error.message
    assert failed.error.param == "response_format"
    assert re.fullmatch("[A-Z]{9}0", bench.answer(1)[0])


def test_bans_give_way_where_the_grammar_ends(small: Grammars) -> None:
    bench = Tight(small)
    bench.submit(
        0, "A?", sampling=SamplingParams(temperature=0, ignore_eos=True, logit_bias=((33, -100.0),))
    )
    bench.submit(1, "", sampling=SamplingParams(temperature=0, min_tokens=3))
    bench.submit(2, "A?", sampling=SamplingParams(temperature=0, ignore_eos=True))
    bench.run()
    assert [bench.answer(id)[0] for id in range(3)] == ["", "", "A"]


def test_text_is_a_prompt_too(grammars: Grammars, vocabulary: Vocabulary) -> None:
    request = GenerateRequest(Text("Hi"), GREEDY, 9, grammar=schema({"const": 1}))
    assert request.grammar is not None
    sequence = Sequence(0, request, vocabulary, 64, grammars.compile(request.grammar))
    assert list(sequence.forced) == spell(vocabulary, "1")
