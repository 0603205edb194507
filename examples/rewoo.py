"""reWOO: the model plans what tools are to do, this program does it, and nobody asks in between.

A grammar holds the plan to the tools that there are, to evidence that is there by then, and to so
many steps. A tool that fails ends everything: the steps after it were planned for what it was to
find. rewoo_plan.py is about the form of plans, rewoo_tools.py about search and scraping.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from openai import BadRequestError, OpenAI, OpenAIError
from openai.types.chat import ChatCompletionMessageParam
from rewoo_plan import (
    MAX_TEXT,
    REFERENCE,
    Evidence,
    Plan,
    PlanError,
    Tool,
    Tools,
    fill,
    grammar,
    parse,
)
from rewoo_tools import Scraper, Search, ToolError, extract_links

EXAMPLES = """\
examples:
  python examples/rewoo.py --documents examples/library "When is the library open?"
  python examples/rewoo.py --allow example.org "What does https://example.org/ offer?"
  python examples/rewoo.py --documents docs --show-plan "What is a pinned model?" > plan.txt
  python examples/rewoo.py --documents docs --plan plan.txt
"""

SHOWN = {
    "Search": ("When was the bridge built?", "When was the bridge built"),
    "Scraper": ("What does https://bridge.example/ say?", "https://bridge.example/"),
}
"""Questions, and inputs for their first step: an example of a plan. Only small models need one."""

STEP_TOKENS = 2 * MAX_TEXT + 32
ANSWER_TOKENS = 256

SHORT = 80
"""Characters of evidence that stands in a question. What is longer goes along as a document."""


def carry_out(plan: Plan, tools: Tools, max_evidence: int) -> str:
    """The answer. Evidence is cut to so many characters. Raises ToolError with the call."""
    evidence: dict[int, str] = {}
    for step in plan.steps:
        print(f"Plan: {step.plan}\n{step}", file=sys.stderr)
        try:
            found = tools[step.tool].run(step.inputs, evidence)
        except ToolError as error:
            raise ToolError(f"{step}: {error}") from error
        if (n_more := len(found) - max_evidence) > 0:
            found = f"{found[:max_evidence]}\n[{n_more:,} more characters]"
        evidence[step.number] = found
        print(f"  {' '.join(found.split())[:200]}", file=sys.stderr)
    return fill(plan.answer, evidence)


class Model:
    """A model of Corral's. It plans, and is a tool itself."""

    def __init__(self, url: str, name: str):
        self._chat = OpenAI(base_url=url, api_key="none").chat.completions
        self._name = name

    def plan(self, question: str, tools: Tools, max_steps: int) -> str:
        """A plan's text. Raises PlanError if it does not end."""
        shown = [
            {"type": "function", "function": {"name": name, "description": tool.description}}
            for name, tool in tools.items()
        ]
        body = {"chat_template": "rewoo", "tools": shown, "lark": grammar(tools, max_steps)}
        said = [*_example(next(iter(tools))), _says(question)]
        text, ended = self._ask(said, max_steps * STEP_TOKENS, body)
        if not ended:
            raise PlanError(f"it does not end:\n{text}")
        return text

    def answer(self, inputs: Sequence[str], evidence: Evidence) -> str:
        """The tool: the first input is the question, others are what to answer it from."""
        question, *texts = inputs
        used = dict.fromkeys(int(number) for number in REFERENCE.findall(question))
        long = [n for n in used if len(evidence[n]) > SHORT or "\n" in evidence[n]]
        names = {n: f":evidence{n}:" for n in long}
        documents = [{"name": names[n], "text": evidence[n]} for n in long]
        documents += [{"text": fill(text, evidence)} for text in texts]
        # Models that are not Bagel may go on with an answer to nobody's question.
        stop = ["### Response:"]
        body = {"chat_template": "bagel-alpaca", "documents": documents, "stop": stop}
        said = [_says(fill(question, {**evidence, **names}))]
        try:
            text, ended = self._ask(said, ANSWER_TOKENS, body)
        except BadRequestError as error:
            raise ToolError(error.message) from error
        return text.strip() + ("" if ended else " ...")

    def _ask(
        self, said: list[ChatCompletionMessageParam], most: int, body: Mapping[str, object]
    ) -> tuple[str, bool]:
        """The answer in so many tokens, and whether it has come to its end."""
        choice = self._chat.create(
            model=self._name, messages=said, temperature=0, max_tokens=most, extra_body=body
        ).choices[0]
        return choice.message.content or "", choice.finish_reason != "length"


def _example(tool: str) -> list[ChatCompletionMessageParam]:
    """A question and its plan, for plans that begin with this tool."""
    if tool not in SHOWN:
        return []
    question, text = SHOWN[tool]
    plan = f"""\
Plan: Find what there is about the bridge.
:evidence0: = {tool}[{text}]
Plan: Answer the question from what was found.
:evidence1: = LLM[{question.removesuffix("?")}, given :evidence0:?]
Answer: :evidence1:"""
    return [_says(question), {"role": "assistant", "content": plan}]


def _says(content: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": content}


def tools_of(model: Model, documents: Path | None, hosts: Sequence[str]) -> Tools:
    """The tools that there is something for. Raises ToolError."""
    tools = dict[str, Tool]()
    if documents is not None:
        tools["Search"] = _of_text("Find paragraphs of our documents.", Search(documents))
    if hosts:
        about = f"Load the pages that the input links to, of {' and '.join(hosts)}, as text."
        tools["Scraper"] = _of_text(about, Scraper(hosts))
        tools["LinkExtractor"] = _of_text("List the links in the input.", extract_links, True)
    about = "Answer a question from the evidence that it refers to."
    return {**tools, "LLM": Tool(about, model.answer, needs_evidence=True, most=9)}


def _of_text(description: str, find: Callable[[str], str], needs_evidence: bool = False) -> Tool:
    def run(inputs: Sequence[str], evidence: Evidence) -> str:
        return find(fill(inputs[0], evidence))

    return Tool(description, run, needs_evidence)


def main() -> None:
    url = os.environ.get("CORRAL_URL", "http://127.0.0.1:8000/v1")
    parser = argparse.ArgumentParser(
        description="Answers a question by a plan for tools, which the model makes beforehand.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("question", nargs="?", help="what to answer; not with --plan")
    add("--url", default=url, help="the server's (default: CORRAL_URL, now %(default)s)")
    add("--model", default="smollm2-135m-instruct", help="(default: %(default)s)")
    add("--documents", type=Path, metavar="FOLDER", help="Search finds its .txt and .md files")
    # fmt: off
    add("--allow", action="append", default=[], metavar="HOST[:PORT]",
        help="Scraper may load its pages; can be given several times")
    add("--max-steps", type=int, default=4, metavar="N", help="of a plan (default: %(default)s)")
    add("--max-evidence", type=int, default=3000, metavar="N",
        help="characters that are kept of what a tool finds (default: %(default)s)")
    # fmt: on
    add("--plan", metavar="FILE", help="carry out this plan, none of the model's; -: from stdin")
    add("--show-plan", action="store_true", help="write the plan, and do nothing")
    args = parser.parse_args()
    if (args.question is None) == (args.plan is None):
        parser.error("either a question or a plan is needed")
    if min(args.max_steps, args.max_evidence) < 1:
        parser.error("--max-steps and --max-evidence are at least 1")
    model = Model(args.url, args.model)
    try:
        tools = tools_of(model, args.documents, args.allow)
        if args.plan is None:
            text = model.plan(args.question, tools, args.max_steps)
        else:
            text = sys.stdin.read() if args.plan == "-" else Path(args.plan).read_text("utf-8")
        plan = parse(text, tools, args.max_steps)
        print(text if args.show_plan else carry_out(plan, tools, args.max_evidence))
    except PlanError as error:
        sys.exit(f"the plan is wrong: {error}")
    except OpenAIError as error:
        sys.exit(f"{args.url}: {error}")
    except (ToolError, OSError, UnicodeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
