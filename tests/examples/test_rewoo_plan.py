"""Plans: what the grammar lets a model write, and what the parser makes of plans of any origin."""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewoo_plan import MAX_TEXT, Evidence, PlanError, Tool, Tools, fill, grammar, parse

from server.engine import llama
from server.engine.grammar import Constraint, Grammars
from server.engine.llama import backend
from server.engine.vocabulary import Vocabulary
from server.engine_config import EngineConfig
from server.ipc import Grammar


def unused(inputs: Sequence[str], evidence: Evidence) -> str:
    raise AssertionError((inputs, evidence))


TOOLS: Tools = {
    "Search": Tool("", unused),
    "LinkExtractor": Tool("", unused, needs_evidence=True),
    "LLM": Tool("", unused, needs_evidence=True, most=3),
}

PLAN = """
Plan: Look for it: in https://a.example/.
:evidence0: = Search[the bridge, or "bridges"]

  Plan: Read [the] answer, from :evidence0:.
  :evidence7:=LLM[When was it built, given :evidence0:?]
Plan: Once more.
:evidence2: = LLM["When, and why?", :evidence7: , ":evidence0: too"]
Answer: [:evidence2:]
"""


class TestParser:
    """Texts to plans."""

    def test_a_plan(self) -> None:
        steps, answer = parse(PLAN, TOOLS, 3)
        assert steps == [
            (0, "Look for it: in https://a.example/.", "Search", ['the bridge, or "bridges"']),
            (7, "Read [the] answer, from :evidence0:.", "LLM",
             ["When was it built, given :evidence0:?"]),
            (2, "Once more.", "LLM", ["When, and why?", ":evidence7:", ":evidence0: too"]),
        ]  # fmt: skip
        assert answer == ":evidence2:"
        assert str(steps[1]) == ":evidence7: = LLM[When was it built, given :evidence0:?]"

    def test_steps_without_a_word_about_them(self) -> None:
        steps, answer = parse(":evidence0: = Search[x]\nAnswer: It is :evidence0.", TOOLS, 1)
        assert (steps[0].plan, answer) == ("", "It is :evidence0.")

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (":evidence1: = Google[x]", "there is no tool 'Google', only Search, LinkExtractor, "),
            (":evidence1: = search[x]", "there is no tool 'search'"),
            (":evidence1: = [x]", "there is no tool ''"),
            (':evidence1: = Search["a", "b"]', "2 inputs, and Search takes 1"),
            (':evidence1: = LLM["a", "b", :evidence0:, "c"]', "4 inputs, and LLM takes 3"),
            (":evidence1: = Search[]", "an input is empty"),
            (":evidence1: = Search[ ]", "an input is empty"),
            (':evidence1: = LLM["a", ""]', "an input is empty"),
            (':evidence1: = LLM["a, :evidence0:]', "a quote is not closed"),
            (':evidence1: = LLM["a" :evidence0:]', "with commas between"),
            (':evidence1: = LLM["a", b]', "with commas between"),
            (':evidence1: = LLM["a",]', "with commas between"),
            (":evidence1: = LLM[a, :evidence1:]", ":evidence1: is not there yet"),
            (":evidence1: = LLM[a, :evidence2:]", ":evidence2: is not there yet"),
            (":evidence1: = LLM[a, :evidence3:]", ":evidence3: is not in the plan"),
            (":evidence1: = LLM[a, :evidence99999:]", " is not in the plan"),
            (":evidence1: = LLM[a, :evidence:]", ":evidence: is not in the plan"),
            (':evidence1: = LLM["a", :evidence3:]', ":evidence3: is not in the plan"),
            (":evidence0: = Search[x]", "there is :evidence0: already"),
            (":evidence1: = Search[x", "a line is 'Plan: ...' or ':evidence0: = Tool[input]'"),
            (":evidence1: = Search", "a line is 'Plan"),
            (":evidence1: = Search[x] and more", "a line is 'Plan"),
            ("Sure! Here is the plan.", "before the answer, a line is 'Plan"),
            ("Answer: :evidence0:", "before the answer, a line is 'Plan"),
        ],
    )
    def test_a_line_that_is_wrong_is_quoted(self, line: str, reason: str) -> None:
        text = f":evidence0: = Search[x]\n{line}\n:evidence2: = Search[y]\nAnswer: :evidence0:"
        with pytest.raises(PlanError) as caught:
            parse(text, TOOLS, 3)
        assert str(caught.value).startswith(f"{line!r}: ")
        assert reason in str(caught.value)

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ("", "it does not end with an answer"),
            ("Plan: nothing", "it does not end with an answer"),
            ("Answer: :evidence0:\nThat is it.", "it does not end with an answer"),
            ("Answer:", "'Answer:': an answer refers to evidence"),
            ("Answer: 42", "an answer refers to evidence"),
            ("Answer: :evidence1:", ":evidence1: is not in the plan"),
        ],
    )
    def test_answers_that_are_wrong(self, answer: str, reason: str) -> None:
        with pytest.raises(PlanError, match=reason):
            parse(f":evidence0: = Search[x]\n{answer}", TOOLS, 3)

    def test_too_many_steps(self) -> None:
        text = "".join(f":evidence{n}: = Search[x]\n" for n in range(4)) + "Answer: :evidence3:"
        assert len(parse(text, TOOLS, 4).steps) == 4
        with pytest.raises(PlanError, match="it has 4 steps, at most 3 are allowed"):
            parse(text, TOOLS, 3)

    @given(
        st.lists(
            st.sampled_from([':evidence0: = Search["a", b]', "Plan: ", "Answer: ", "\n", "1"])
            | st.text(max_size=3),
            max_size=30,
        )
    )
    def test_any_text_is_a_plan_or_not(self, parts: list[str]) -> None:
        try:
            steps, answer = parse("".join(parts), TOOLS, 5)
        except PlanError:
            return
        known = dict.fromkeys((step.number for step in steps), "")
        for text in (answer, *(text for step in steps for text in step.inputs)):
            fill(text, known)


def test_evidence_in_place_of_references() -> None:
    evidence = {0: "zero :evidence1:", 1: r"\1", 10: "ten"}
    assert fill(":evidence10:, :evidence0 :evidence1::evidence1:", evidence) == (
        r"ten, zero :evidence1: \1\1"
    )


@pytest.fixture(scope="module")
def grammars(model_path: Path) -> Iterator[tuple[Grammars, Vocabulary]]:
    """Of the real model's vocabulary."""
    log = llama.backend_init()
    with llama.Model(str(model_path), EngineConfig(), 0, log, lambda _: None) as model:
        vocabulary = Vocabulary(model.vocabulary)
        yield Grammars(vocabulary), vocabulary
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


def written(constraint: Constraint, vocabulary: Vocabulary, rng: random.Random) -> str:
    """A text of tokens that the grammar allows, chosen by lot; often those that end something."""
    logits = np.empty(vocabulary.n_tokens, np.float32)
    pieces = map(vocabulary.piece, range(vocabulary.n_tokens))
    ending = {n for n, piece in enumerate(pieces) if re.search(rb"[]:\n]", piece)}
    tokens = list(constraint.forced)
    while True:
        logits[:] = 0
        constraint.mask(logits)
        allowed: list[int] = np.flatnonzero(logits == 0).tolist()
        marked = sorted(ending.intersection(allowed))
        token = rng.choice(marked if marked and rng.random() < 0.2 else allowed)
        if token in vocabulary.end_set:
            return spelled(vocabulary, tokens).decode()
        tokens += [token, *constraint.advance(token)]


class TestGrammar:
    """Whatever it lets through, the parser takes."""

    @pytest.mark.parametrize("seed", range(16))
    def test_what_it_allows_is_a_plan(
        self, grammars: tuple[Grammars, Vocabulary], seed: int
    ) -> None:
        compiler, vocabulary = grammars
        max_steps = 1 + seed % 4
        constraint = compiler.compile(Grammar("lark", grammar(TOOLS, max_steps), "lark"))
        text = written(constraint, vocabulary, random.Random(seed))
        steps, _ = parse(text, TOOLS, max_steps)
        assert [step.number for step in steps] == list(range(len(steps)))
        assert steps[0].tool == "Search"
        for step in steps:
            assert step.plan and len(step.inputs) == 1
            assert step.tool == "Search" or ":evidence" in step.inputs[0]

    @pytest.mark.parametrize(
        "text",
        [
            "Plan: a\n:evidence0: = Search[b]\nAnswer: :evidence0:",
            "Plan: See https://a.example:8080/b?c=d#e, and f.\n"
            ":evidence0: = Search[it's 100% (not) x/y; z!]\n"
            "Plan: After :evidence0:, links.\n"
            ":evidence1: = LinkExtractor[:evidence0:]\n"
            "Plan: Käse 文\n"
            ":evidence2: = LLM[When, given:evidence0: and :evidence1:?]\n"
            "Answer: :evidence1:",
        ],
    )
    def test_plans_that_it_allows(self, grammars: tuple[Grammars, Vocabulary], text: str) -> None:
        assert taken(grammars, text) == text

    @pytest.mark.parametrize(
        ("text", "allowed"),
        [
            ("Sure", ""),
            ("Plan: a\n:evidence0: = Google[", "Plan: a\n:evidence0: = "),
            ("Plan: a\n:evidence0: = LLM[", "Plan: a\n:evidence0: = "),
            ("Plan: a\n:evidence0: = Search[]", "Plan: a\n:evidence0: = Search["),
            ("Plan: a\n:evidence0: = Search[b :evidence0:", "Plan: a\n:evidence0: = Search[b "),
            ("Plan: a\n:evidence0: = Search[b: c", "Plan: a\n:evidence0: = Search[b"),
            ("Plan: a\n:evidence0: = Search[b\n", "Plan: a\n:evidence0: = Search[b"),
            ("Plan: a\n:evidence0: = Search[b]\nAnswer: :evidence1:",
             "Plan: a\n:evidence0: = Search[b]\nAnswer: :evidence"),
            ("Plan: a\n:evidence0: = Search[b]\nPlan: c\n:evidence0: =",
             "Plan: a\n:evidence0: = Search[b]\nPlan: c\n:evidence"),
            ("Plan: a\n:evidence0: = Search[b]\nPlan: c\n:evidence1: = LLM[d]",
             "Plan: a\n:evidence0: = Search[b]\nPlan: c\n:evidence1: = LLM[d"),
            ("Plan: a\n:evidence0: = Search[b]\nPlan: c\n:evidence1: = LLM[d :evidence1:]",
             "Plan: a\n:evidence0: = Search[b]\nPlan: c\n:evidence1: = LLM[d :evidence"),
            (f"Plan: {'a' * (MAX_TEXT + 2)}", f"Plan: {'a' * (MAX_TEXT + 1)}"),
        ],
    )  # fmt: skip
    def test_where_it_says_no(
        self, grammars: tuple[Grammars, Vocabulary], text: str, allowed: str
    ) -> None:
        assert taken(grammars, text) == allowed

    def test_the_last_step_is_followed_by_the_answer(
        self, grammars: tuple[Grammars, Vocabulary]
    ) -> None:
        steps = "".join(f"Plan: a\n:evidence{n}: = Search[b]\n" for n in range(3))
        assert taken(grammars, f"{steps}Plan:") == steps

    def test_a_model_alone_answers_without_evidence(
        self, grammars: tuple[Grammars, Vocabulary]
    ) -> None:
        text = "Plan: a\n:evidence0: = LLM[b]\nAnswer: :evidence0:"
        assert taken(grammars, text, {"LLM": TOOLS["LLM"]}) == text


def taken(grammars: tuple[Grammars, Vocabulary], text: str, tools: Tools = TOOLS) -> str:
    """As much of the text as a grammar of three steps takes, written byte by byte."""
    compiler, vocabulary = grammars
    constraint = compiler.compile(Grammar("lark", grammar(tools, 3), "lark"))
    pieces = {vocabulary.piece(token): token for token in range(vocabulary.n_tokens)}
    logits = np.empty(vocabulary.n_tokens, np.float32)
    data, done = text.encode(), spelled(vocabulary, constraint.forced)
    while data.startswith(done) and data != done:
        token = pieces[data[len(done) : len(done) + 1]]
        logits[:] = 0
        constraint.mask(logits)
        if logits[token] != 0:
            break
        done += spelled(vocabulary, [token, *constraint.advance(token)])
    same = takewhile(lambda pair: pair[0] == pair[1], zip(data, done, strict=False))
    return bytes(byte for byte, _ in same).decode()


def spelled(vocabulary: Vocabulary, tokens: Sequence[int]) -> bytes:
    return b"".join(map(vocabulary.piece, tokens))
