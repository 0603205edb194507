"""The form of plans that rewoo.py has made and carries out: a grammar for it, and a parser.

    Plan: Search our documents for the bridge.
    :evidence0: = Search[year the bridge was built]
    Plan: Answer the question from what was found.
    :evidence1: = LLM[When was the bridge built, given :evidence0:?]
    Answer: :evidence1:

It is Bagel's. A tool has one input, which is everything in the brackets. Inputs in quotes, with
references between them, may be several: `LLM["When was it built?", :evidence0:, :evidence1:]`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

REFERENCE = re.compile(r":evidence(\d{0,4}):?")
CALL = re.compile(r":evidence(\d{1,4}):\s*=\s*([^\[]*?)\s*\[(.*)\]")
QUOTED = r'"[^"]*"|:evidence\d+:'

MAX_TEXT = 120
"""Characters that the grammar allows an input, and what a step is for: small models find no end."""

Evidence = Mapping[int, str]


class PlanError(Exception):
    """What is wrong with a plan."""


class Tool(NamedTuple):
    """What a plan calls by `Name[input]`."""

    description: str
    run: Callable[[Sequence[str], Evidence], str]
    """Takes inputs as the plan has them, and what they may refer to. Raises ToolError."""
    needs_evidence: bool = False
    """The model must refer to some, where there can be any."""
    most: int = 1
    """Inputs, of which there is always one."""


Tools = Mapping[str, Tool]


class Step(NamedTuple):
    """A call, and what for."""

    number: int
    plan: str
    tool: str
    inputs: Sequence[str]

    def __str__(self) -> str:
        return f":evidence{self.number}: = {self.tool}[{', '.join(self.inputs)}]"


class Plan(NamedTuple):
    """Steps in their order, each with evidence of a number of its own."""

    steps: Sequence[Step]
    answer: str
    """A text with references."""


def grammar(tools: Tools, max_steps: int) -> str:
    """Lark for plans. Each step has its own rules, which know the evidence before it."""
    first = {name for name, tool in tools.items() if not tool.needs_evidence} or tools.keys()
    # Colons begin references and stand in addresses. Elsewhere they lead small models astray.
    address = r"https?:\/\/[A-Za-z0-9.-]{1,60}(:[0-9]{2,5})?"
    character, solid = rf'[^\r\n\[\]":]|{address}', r'[^\s\[\]":]'
    rules = ["start: step0"]
    for n in range(max_steps):
        known = "|".join(f":evidence{k}:" for k in range(n)) or solid
        text = f"({solid}|{known})({character}|{known}){{0,{MAX_TEXT}}}"
        about = f"({character}){{0,{MAX_TEXT}}}({known})({character}|{known}){{0,{MAX_TEXT}}}"
        calls = " | ".join(
            f'"{name}[" {"ABOUT" if n and tool.needs_evidence else "TEXT"}{n} "]"'
            for name, tool in tools.items()
            if n or name in first
        )
        after = f"(step{n + 1} | answer{n})" if n + 1 < max_steps else f"answer{n}"
        rules += [
            f'step{n}: "Plan: " TEXT{n} "\\n:evidence{n}: = " ({calls}) "\\n" {after}',
            f"answer{n}: /Answer: :evidence({'|'.join(map(str, range(n + 1)))}):/",
            f"TEXT{n}: /{text}/\nABOUT{n}: /{about}/",
        ]
    return "\n".join(rules)


def parse(text: str, tools: Tools, max_steps: int) -> Plan:
    """The plan that a text tells. Raises PlanError with the line that is wrong."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines or not lines[-1].startswith("Answer:"):
        raise PlanError("it does not end with an answer, as in 'Answer: :evidence0:'")
    planned = {int(call[1]) for call in map(CALL.fullmatch, lines) if call}
    steps: dict[int, Step] = {}
    plan = ""
    for line in lines[:-1]:
        if line.startswith("Plan:"):
            plan = line.removeprefix("Plan:").strip()
            continue
        step = _parse_step(line, plan, tools)
        _check(line, " ".join(step.inputs), steps, planned)
        if step.number in steps:
            raise PlanError(f"{line!r}: there is :evidence{step.number}: already")
        steps[step.number] = step
    if len(steps) > max_steps:
        raise PlanError(f"it has {len(steps)} steps, at most {max_steps} are allowed")
    answer = lines[-1].removeprefix("Answer:").strip(" []")
    _check(lines[-1], answer, steps, planned)
    if not REFERENCE.search(answer):
        raise PlanError(f"{lines[-1]!r}: an answer refers to evidence")
    return Plan(list(steps.values()), answer)


def _parse_step(line: str, plan: str, tools: Tools) -> Step:
    call = CALL.fullmatch(line)
    if not call:
        form = "'Plan: ...' or ':evidence0: = Tool[input]'"
        raise PlanError(f"{line!r}: before the answer, a line is {form}")
    name, inputs = call[2], _inputs(line, call[3].strip())
    if name not in tools:
        raise PlanError(f"{line!r}: there is no tool {name!r}, only {', '.join(tools)}")
    if not all(map(str.strip, inputs)):
        raise PlanError(f"{line!r}: an input is empty")
    if len(inputs) > (most := tools[name].most):
        raise PlanError(f"{line!r}: {len(inputs)} inputs, and {name} takes {most}")
    return Step(int(call[1]), plan, name, inputs)


def _inputs(line: str, text: str) -> list[str]:
    """One plain text, as Bagel writes it; or, from a quote on, quoted texts and references."""
    if not text.startswith('"'):
        return [text]
    if text.count('"') % 2:
        raise PlanError(f"{line!r}: a quote is not closed")
    if not re.fullmatch(rf"({QUOTED})(\s*,\s*({QUOTED}))*", text):
        raise PlanError(f"{line!r}: inputs are quoted texts and evidence, with commas between")
    return [quoted.strip('"') for quoted in re.findall(QUOTED, text)]


def _check(line: str, text: str, steps: Mapping[int, Step], planned: set[int]) -> None:
    for reference in REFERENCE.finditer(text):
        number = int(reference[1] or -1)
        if number not in steps:
            why = "is not there yet" if number in planned else "is not in the plan"
            raise PlanError(f"{line!r}: {reference[0]} {why}")


def fill(text: str, evidence: Evidence) -> str:
    """The text with evidence in place of the references to it."""
    return REFERENCE.sub(lambda reference: evidence[int(reference[1])], text)
