"""reWOO: tools are shown for a plan of their use, and nothing is a call."""

from dataclasses import replace
from pathlib import Path

import pytest

from server.chat.format import plan_for
from server.chat.turn import Plan, Tool, ToolChoice, Turn
from server.config import ModelConfig
from server.errors import InvalidRequest, UnsupportedParameter
from server.ipc import Grammar
from tests.api.scripted import INFO
from tests.chat.answers import PYTHON, read_every_way

HI = [{"role": "user", "content": "Hi"}]
QUERY = {"type": "object", "properties": {"query": {"type": "string"}}}
RANGE = {"type": "object", "properties": {"first": True, "last": True}}
TOOLS = (
    Tool("Search", "Find documents.", QUERY),
    Tool("LLM", "Answer a question."),
    Tool("Range", parameters=RANGE),
)
TASK = (
    "Below is an instruction that describes a task.  Write a response that appropriately "
    "completes the request.\n\n"
)
# Of the prompts that Bagel was trained on.
INTRODUCTION = (
    "Please construct a systematic plan to generate an optimal response to the user "
    "instruction, utilizing a set of provided tools. Each plan will correspond to an evidence "
    "value, which will be the output from one of the available functions given an input string "
    "that can be the user's question, one or more previous evidence values, or a mixture of "
    "both.\n\nHere are the tools available to be called:\n"
)
TOLD = "Search[query]: Find documents.\nLLM[input]: Answer a question.\nRange[first, last]: \n"
INPUT = (
    '\nThe input to each function should just be a plain string, without quotes or "+" to '
    "concatenate a string with an evidence variable"
)
EXAMPLE = ", e.g. LLM[What is the capital of Michigan, given :evidence3:?]"
FORM = (
    "\n\nBe sure to only include one evidence output per plan step.\n\n"
    "The output should be in format:\n"
    "Plan: first action to take based in input question\n"
    ":evidence0: = function to call with input parameter\n"
    "Plan: next action to take, based on result of :evidence0:\n"
    ":evidence1: = [next function to call and input parameter, which may include reference to "
    'previous evidence, e.g. "Given context :evidence0"]\n'
    "...\nAnswer: [:evidence[n]: containing the final answer.]\n\nQuestion: "
)
OTHER = ModelConfig(path=Path("model.gguf"), template="chatml")


def planned(turn: Turn, config: ModelConfig = OTHER) -> Plan:
    return plan_for(config, INFO, replace(turn, template="rewoo"))


def test_the_prompt() -> None:
    text = planned(Turn(HI, TOOLS)).prompt.text
    asked = INTRODUCTION + TOLD + INPUT + EXAMPLE + FORM
    assert text == f"{TASK}### Instruction:\n{asked}Hi\n\n### Response:\n"


def test_no_example_with_a_tool_that_there_is_not() -> None:
    text = planned(Turn(HI, TOOLS[:1])).prompt.text
    assert f"{INPUT}.{FORM}Hi\n\n" in text and "LLM[" not in text


def test_only_what_is_said_last_is_planned_for() -> None:
    said = [
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "Answer: :evidence0:"},
        {"role": "system", "content": "S"},
        {"role": "user", "content": "B"},
    ]
    text = planned(Turn(said, TOOLS)).prompt.text
    before = "### Instruction:\nA\n\n### Response:\nAnswer: :evidence0:<|im_end|>\n\n"
    assert text.startswith(f"{TASK}{before}### Instruction:\nS\n{INTRODUCTION}")
    assert text.endswith(f"{FORM}B\n\n### Response:\n")
    assert text.count("Please construct") == 1


def test_a_begun_plan() -> None:
    said = [*HI, {"role": "assistant", "content": "Plan: First"}]
    turn = Turn(said, TOOLS, add_generation_prompt=False, continue_final_message=True)
    text = planned(turn).prompt.text
    assert text.endswith("Hi\n\n### Response:\nPlan: First")


def test_without_tools_it_is_plain_alpaca() -> None:
    none = replace(Turn(HI, TOOLS), tool_choice=ToolChoice("none"))
    for turn in (Turn(HI), none):
        text = planned(turn).prompt.text
        assert text == f"{TASK}### Instruction:\nHi\n\n### Response:\n"


def test_some_of_the_tools() -> None:
    choice = ToolChoice("auto", ("Search",))
    text = planned(Turn(HI, TOOLS, choice)).prompt.text
    assert "called:\nSearch[query]: Find documents.\n\nThe input" in text


def test_a_plan_is_text_whatever_it_looks_like() -> None:
    plan = planned(Turn(HI, (PYTHON,)))
    text = '{"tool_calls": [{"name": "python", "arguments": {"code": "1"}}]}'
    assert plan.grammar is None
    assert read_every_way(plan.parser, text) == [("content", text)]


def test_its_grammar_is_the_clients() -> None:
    grammar = Grammar("lark", 'start: "Plan: " /[^\\n]+/', "lark")
    assert planned(Turn(HI, TOOLS, answer=grammar)).grammar == grammar


def test_the_models_own_dialect_does_not_count() -> None:
    config = OTHER.model_copy(update={"dialect": "bagel"})
    turn = Turn(HI, TOOLS)
    assert planned(turn, config).prompt == planned(turn).prompt


def test_control_text_is_literal() -> None:
    tool = Tool("<s>", "<|im_end|>", {"properties": {"<s>": {}}})
    prompt = planned(Turn([{"role": "user", "content": "<|im_end|>"}], (tool,))).prompt
    literal = [prompt.text[start:end] for start, end in prompt.literal]
    assert literal == ["<s>", "<s>", "<|im_end|>", "<|im_end|>"]


def test_no_call_can_be_required() -> None:
    turn = Turn(HI, TOOLS, ToolChoice("required"))
    with pytest.raises(UnsupportedParameter, match="no call can be required") as caught:
        planned(turn)
    assert caught.value.param == "tool_choice"


def test_nobody_to_plan_for() -> None:
    with pytest.raises(InvalidRequest, match="no message of a user's"):
        planned(Turn([{"role": "system", "content": "x"}], TOOLS))
