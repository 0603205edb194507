"""What an answer must match, from all that is asked for together."""

from dataclasses import replace

import pytest

from server.chat.dialect import Call, Dialect
from server.chat.dialects import DIALECTS, functionary, generic, gpt_oss, hermes, llama3
from server.chat.lark import Spelling
from server.chat.reasoning import Thoughts
from server.chat.turn import ToolChoice, Turn
from server.chat.wanted import Wanted
from server.errors import InvalidRequest
from server.ipc import Grammar
from tests.chat.answers import PYTHON, WEATHER
from tests.chat.matching import accepts, token_ids

THINK = Thoughts("<think>", "</think>")
EMPTY = Grammar("json_schema", '{"type": "object", "additionalProperties": false}')
GBNF = Grammar("gbnf", 'root ::= "a"')
CODE = '<tool_call>\n{"name": "python", "arguments": {"code": "1"}}\n</tool_call>'
PLAIN = Turn([])
AUTO = Turn([], (PYTHON,))
NONE = replace(AUTO, tool_choice=ToolChoice("none"))
REQUIRED = replace(AUTO, tool_choice=ToolChoice("required"))


def wanted(
    turn: Turn,
    dialect: Dialect = hermes.DIALECT,
    thoughts: Thoughts | None = None,
    inside: bool = False,
    control: tuple[str, ...] = (),
) -> Wanted:
    return Wanted(turn, turn.tools, dialect, Spelling(token_ids(control)), thoughts, inside)


def lark(found: Wanted) -> str:
    grammar = found.grammar()
    assert grammar
    assert grammar.syntax == "lark"
    return grammar.source


def test_nothing_is_wanted() -> None:
    assert wanted(PLAIN).grammar() is None
    assert wanted(AUTO).grammar() is None
    assert wanted(PLAIN).prefix == ""


@pytest.mark.parametrize(
    "turn",
    [
        REQUIRED,
        replace(AUTO, parallel_tool_calls=False),
        replace(AUTO, tool_choice=ToolChoice("auto", ("python",))),
        replace(AUTO, tools=(replace(PYTHON, strict=True),)),
        replace(AUTO, answer=EMPTY),
    ],
)
def test_what_needs_a_grammar(turn: Turn) -> None:
    assert accepts(lark(wanted(turn)), CODE)


def test_a_dialect_that_the_template_does_not_know_needs_one_always() -> None:
    assert wanted(AUTO, generic.DIALECT).grammar()


def test_a_demand_for_one_function_is_met_once() -> None:
    named = replace(REQUIRED, tool_choice=ToolChoice("required", ("python",)))
    assert accepts(lark(wanted(REQUIRED)), f"{CODE}\n{CODE}")
    assert accepts(lark(wanted(named)), CODE)
    assert not accepts(lark(wanted(named)), f"{CODE}\n{CODE}")


def test_a_model_without_tools_of_its_own_calls_once_when_it_must() -> None:
    call = '{"name": "python", "arguments": {"code": "1"}}'
    one, two = (f'{{"tool_calls": [{", ".join([call] * n)}]}}' for n in (1, 2))
    assert accepts(lark(wanted(AUTO, generic.DIALECT)), two)
    assert accepts(lark(wanted(REQUIRED, generic.DIALECT)), one)
    assert not accepts(lark(wanted(REQUIRED, generic.DIALECT)), two)


def test_the_field_that_a_fault_is_about() -> None:
    one = replace(REQUIRED, tools=(replace(PYTHON, param="tools.3.function"),))
    assert (found := wanted(one).grammar())
    assert found.param == "tools.3.function"
    assert (found := wanted(replace(REQUIRED, tools=(PYTHON, WEATHER))).grammar())
    assert found.param == "tools"


class TestNone:
    """Tools are there, and none may be called."""

    @pytest.mark.parametrize(
        "dialect",
        [one for one in DIALECTS if (one.shape.mark or one.own_prompt) and not one.grammar],
        ids=lambda dialect: dialect.name,
    )
    def test_nothing_can_be_taken_for_a_call(self, dialect: Dialect) -> None:
        found = Wanted(NONE, (), dialect, Spelling({}), None, False)
        call = dialect.write([Call("python", '{"code": "1"}')])
        assert accepts(lark(found), "Well, {it} is.\n")
        assert accepts(lark(found), call[:5])
        assert not accepts(lark(found), call)
        assert not accepts(lark(found), f"\n{call}")

    def test_it_is_free_where_no_text_is_a_call(self) -> None:
        assert Wanted(NONE, (), gpt_oss.DIALECT, Spelling({}), None, False).grammar() is None

    def test_the_answers_own_format_goes_first(self) -> None:
        asked = replace(NONE, answer=EMPTY)
        assert Wanted(asked, (), hermes.DIALECT, Spelling({}), None, False).grammar() is EMPTY

    def test_after_thoughts(self) -> None:
        found = Wanted(NONE, (), hermes.DIALECT, Spelling({}), THINK, True)
        assert accepts(lark(found), "Hm <tool_call></think>\nYes")
        assert not accepts(lark(found), f"Hm</think>\n{CODE}")


class TestAnswer:
    """A format for the answer, with and without tools."""

    def test_alone_it_is_left_as_it_is(self) -> None:
        assert wanted(replace(PLAIN, answer=EMPTY)).grammar() is EMPTY
        assert wanted(replace(PLAIN, answer=GBNF), thoughts=THINK).grammar() is GBNF

    def test_or_a_call(self) -> None:
        grammar = lark(wanted(replace(AUTO, answer=EMPTY)))
        assert accepts(grammar, "{}")
        assert accepts(grammar, CODE)
        assert not accepts(grammar, "text")

    def test_a_regex_or_a_call(self) -> None:
        grammar = lark(wanted(replace(AUTO, answer=Grammar("regex", "a/[0-9]+"))))
        assert accepts(grammar, "a/12")
        assert not accepts(grammar, "a/")

    @pytest.mark.parametrize("answer", [GBNF, Grammar("lark", 'start: "a"', "lark")])
    def test_what_cannot_be_joined_with_tools(self, answer: Grammar) -> None:
        with pytest.raises(InvalidRequest, match=f"{answer.syntax} cannot be joined") as caught:
            wanted(replace(AUTO, answer=answer)).grammar()
        assert caught.value.param == answer.param

    def test_a_required_call_leaves_no_room_for_it(self) -> None:
        grammar = lark(wanted(replace(REQUIRED, answer=GBNF)))
        assert accepts(grammar, CODE)
        assert not accepts(grammar, "a")

    def test_a_dialect_that_addresses_its_answers(self) -> None:
        asked = replace(PLAIN, answer=EMPTY)
        harmony = lark(wanted(asked, gpt_oss.DIALECT))
        thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
        assert accepts(harmony, f"{gpt_oss.FINAL}{{}}")
        assert accepts(harmony, f"{thought}{gpt_oss.FINAL}{{}}")
        assert not accepts(harmony, "{}")
        assert accepts(lark(wanted(asked, functionary.V32)), "all\n{}")

    def test_a_grammar_that_cannot_be_part_of_another_begins_in_the_prompt(self) -> None:
        asked = replace(PLAIN, answer=GBNF)
        assert wanted(asked, gpt_oss.DIALECT).prefix == gpt_oss.FINAL
        assert wanted(asked, thoughts=THINK, inside=True).prefix == "\n</think>\n\n"
        assert wanted(asked, thoughts=THINK).prefix == ""
        assert wanted(asked, gpt_oss.DIALECT).grammar() is GBNF


@pytest.mark.parametrize("control", [(), ("<think>", "</think>")])
class TestThoughts:
    """Thoughts come before whatever is asked for, and are free."""

    def test_that_the_prompt_has_begun(self, control: tuple[str, ...]) -> None:
        asked = replace(PLAIN, answer=EMPTY)
        grammar = lark(wanted(asked, thoughts=THINK, inside=True, control=control))
        assert accepts(grammar, "Hm {\n</think>\n\n{}", control)
        assert accepts(grammar, "Hm</think>{}", control)
        assert not accepts(grammar, "{}", control)

    def test_that_the_model_may_begin(self, control: tuple[str, ...]) -> None:
        asked = replace(PLAIN, answer=EMPTY)
        grammar = lark(wanted(asked, thoughts=THINK, control=control))
        assert accepts(grammar, "<think>Hm</think>\n{}", control)
        assert accepts(grammar, "{}", control)
        assert not accepts(grammar, "Hm</think>{}", control)

    @pytest.mark.parametrize("turn", [REQUIRED, replace(AUTO, answer=EMPTY)])
    def test_before_a_call(self, turn: Turn, control: tuple[str, ...]) -> None:
        grammar = lark(wanted(turn, thoughts=THINK, control=control))
        assert accepts(grammar, f"<think>Hm</think>\n\n{CODE}", control)
        assert accepts(grammar, CODE, control)

    def test_before_a_call_without_a_mark(self, control: tuple[str, ...]) -> None:
        turn = replace(AUTO, parallel_tool_calls=False)
        grammar = lark(wanted(turn, llama3.DIALECT, THINK, True, control))
        call = '{"name": "python", "parameters": {}}'
        assert accepts(grammar, f"Hm</think>\n\n{call}", control)
        assert accepts(grammar, "Hm</think>\n\nYes.", control)
        assert not accepts(grammar, f"Hm</think>\n\n{call.replace('python', 'pyton')}", control)
