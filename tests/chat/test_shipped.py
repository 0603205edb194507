"""The templates of templates/: against transformers, against a model card, and where roles mix."""
# ruff: noqa: RUF001  (DeepSeek's tokens have wide bars)

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

import pytest

from server.chat.choice import PACKAGE
from server.chat.families import SHIPPED
from server.chat.format import chat_format
from server.config import ModelConfig
from tests.api.scripted import INFO

NAMES = sorted(path.stem for path in (PACKAGE.parent / "templates").glob("*.jinja"))


class Case(TypedDict):
    """A conversation, and whether an answer is asked for, continued or given."""

    messages: list[dict[str, object]]
    end: str


class Golden(TypedDict):
    """What transformers renders with a public template."""

    bos: str
    eos: str
    texts: dict[str, str]


class Goldens(TypedDict):
    """The file that tests/third_party/programs/template_goldens.py writes."""

    cases: dict[str, Case]
    templates: dict[str, Golden]


GOLDENS = cast(
    "Goldens", json.loads(Path(__file__).with_name("shipped_goldens.json").read_text("utf-8"))
)


def rendered(
    name: str, messages: list[dict[str, object]], end: str = "answer", bos: str = "<s>",
    eos: str = "</s>",
) -> str:  # fmt: skip
    info = replace(INFO, bos=bos, eos=eos)
    chat = chat_format(ModelConfig(path=Path("model.gguf"), template=name), info)
    answer, goes_on = end == "answer", end == "continue"
    prompt = chat.prompt(messages, add_generation_prompt=answer, continue_final_message=goes_on)
    return prompt.text


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name, golden in GOLDENS["templates"].items() for case in golden["texts"]],
)
def test_as_transformers_renders_the_public_template(name: str, case: str) -> None:
    golden, asked = GOLDENS["templates"][name], GOLDENS["cases"][case]
    text = rendered(name, asked["messages"], asked["end"], golden["bos"], golden["eos"])
    assert text == golden["texts"][case]


def test_there_are_goldens_of_all_that_have_a_public_template() -> None:
    own = {"alpaca", "bagel-alpaca", "bagel-chatml", "raw", "rewoo", "vicuna"}
    assert set(GOLDENS["templates"]) | own == set(NAMES)
    assert all({"one turn", "two turns"} <= set(g["texts"]) for g in GOLDENS["templates"].values())


def said(*turns: str) -> list[dict[str, object]]:
    """Messages from "user: text" and the like."""
    parts = [turn.partition(": ") for turn in turns]
    return [{"role": role, "content": text} for role, _, text in parts]


def test_every_template_has_its_line_in_the_table() -> None:
    assert set(MIXED) == set(NAMES)


class Mixed(NamedTuple):
    """A template's texts for conversations that not every template was made for."""

    system: str
    """A system prompt and a question."""
    middle: str
    """A system message between an answer and a question."""
    row: str
    """Two questions in a row, then two answers, then a question."""
    first: str
    """An answer that nobody asked for, after a system prompt."""
    last: str
    """A system message at the end."""


SYSTEM = said("system: S", "user: A")
MIDDLE = said("user: A", "assistant: B", "system: S", "user: C")
ROW = said("user: A", "user: B", "assistant: C", "assistant: D", "user: E")
FIRST = said("system: S", "assistant: A", "user: B")
LAST = said("user: A", "assistant: B", "system: S")

TASK = "Below is an instruction that describes a task.{}Write a response that appropriately "\
       "completes the request.\n\n"  # fmt: skip


def alpaca(gap: str) -> Mixed:
    task, end = TASK.format(gap), "### Response:\n"
    ask = "### Instruction:\n{}\n\n".format
    answer = "### Response:\n{}</s>\n\n".format
    return Mixed(
        task + ask("S\nA") + end,
        task + ask("A") + answer("B") + ask("S\nC") + end,
        task + ask("A") + ask("B") + answer("C") + answer("D") + ask("E") + end,
        task + ask("S") + answer("A") + ask("B") + end,
        task + ask("A") + answer("B") + ask("S") + end,
    )


def blocks(form: str, end: str, start: str = "", named: str = "system user assistant") -> Mixed:
    """Of a template that writes every message in the same way, wherever it stands."""
    told = ["system", "user", "assistant"]
    roles = dict(zip(told, named.split(), strict=True))

    def text(messages: list[dict[str, object]]) -> str:
        parts = (form.format(roles[str(m["role"])], m["content"]) for m in messages)
        return start + "".join(parts) + end

    return Mixed(*map(text, (SYSTEM, MIDDLE, ROW, FIRST, LAST)))


BAGEL = "A chat between a user and an unbiased, uncensored assistant.\n"
QWEN = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n"
)
CHATML = blocks("<|im_start|>{}\n{}<|im_end|>\n", "<|im_start|>assistant\n")
USER, MODEL = "<start_of_turn>user\n{}<end_of_turn>\n".format, "<start_of_turn>model\n"
SAYS = (MODEL + "{}<end_of_turn>\n").format
DEEP_USER, DEEP_END = "<｜User｜>", "<｜Assistant｜>"
DEEP = "<｜Assistant｜>{}<｜end▁of▁sentence｜>".format

MIXED = {
    "alpaca": alpaca(" "),
    "bagel-alpaca": alpaca("  "),
    "vicuna": Mixed(
        "S\nUSER: A\nASSISTANT:",
        BAGEL + "USER: A\nASSISTANT: B</s>\nS\nUSER: C\nASSISTANT:",
        BAGEL + "USER: A\nUSER: B\nASSISTANT: C</s>\nASSISTANT: D</s>\nUSER: E\nASSISTANT:",
        "S\nASSISTANT: A</s>\nUSER: B\nASSISTANT:",
        BAGEL + "USER: A\nASSISTANT: B</s>\nS\nASSISTANT:",
    ),
    "bagel-chatml": blocks("<s>{}\n{}\n</s>\n", "<s>assistant\n"),
    "chatml": CHATML,
    "llama-2": Mixed(
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST]",
        "<s>[INST] A [/INST] B </s><s>[INST] <<SYS>>\nS\n<</SYS>>\n\nC [/INST]",
        "<s>[INST] A\n\nB [/INST] C </s> D </s><s>[INST] E [/INST]",
        "<s>[INST] <<SYS>>\nS\n<</SYS>> [/INST] A </s><s>[INST] B [/INST]",
        "<s>[INST] A [/INST] B </s><s>[INST] <<SYS>>\nS\n<</SYS>> [/INST]",
    ),
    "mistral-instruct": Mixed(
        "<s>[INST] S\n\nA [/INST]",
        "<s>[INST] A [/INST]B</s>[INST] S\n\nC [/INST]",
        "<s>[INST] A\n\nB [/INST]C</s>D</s>[INST] E [/INST]",
        "<s>[INST] S [/INST]A</s>[INST] B [/INST]",
        "<s>[INST] A [/INST]B</s>[INST] S [/INST]",
    ),
    "zephyr": blocks("<|{}|>\n{}</s>\n", "<|assistant|>\n"),
    "llama-3": blocks(
        "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s>",
    ),
    "gemma": Mixed(
        "<s>" + USER("S\n\nA") + MODEL,
        "<s>" + USER("A") + SAYS("B") + USER("S\n\nC") + MODEL,
        "<s>" + USER("A") + USER("B") + SAYS("C") + SAYS("D") + USER("E") + MODEL,
        "<s>" + USER("S") + SAYS("A") + USER("B") + MODEL,
        "<s>" + USER("A") + SAYS("B") + USER("S") + MODEL,
    ),
    "phi-3": blocks("<|{}|>\n{}<|end|>\n", "<|assistant|>\n"),
    "qwen": CHATML._replace(
        middle=QWEN + CHATML.middle, row=QWEN + CHATML.row, last=QWEN + CHATML.last
    ),
    "deepseek": Mixed(
        f"<s>S{DEEP_USER}A{DEEP_END}",
        f"<s>S{DEEP_USER}A{DEEP('B')}{DEEP_USER}C{DEEP_END}",
        f"<s>{DEEP_USER}A{DEEP_USER}B{DEEP('C')}{DEEP('D')}{DEEP_USER}E{DEEP_END}",
        f"<s>S{DEEP('A')}{DEEP_USER}B{DEEP_END}",
        f"<s>S{DEEP_USER}A{DEEP('B')}{DEEP_END}",
    ),
    "command-r": blocks(
        "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>{}<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<s>",
        "SYSTEM USER CHATBOT",
    ),
    "raw": blocks("{1}", ""),
    "rewoo": alpaca("  "),
}


@pytest.mark.parametrize("name", MIXED)
def test_roles_in_any_order(name: str) -> None:
    texts = [rendered(name, messages) for messages in (SYSTEM, MIDDLE, ROW, FIRST, LAST)]
    assert texts == list(MIXED[name])


@pytest.mark.parametrize("name", NAMES)
def test_without_a_system_prompt(name: str) -> None:
    text = rendered(name, said("user: A"))
    assert "SYS" not in text and "A" in text
    assert ("Qwen" in text) == (name == "qwen")
    assert ("uncensored" in text) == (name == "vicuna")


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_continued_where_it_ends(name: str) -> None:
    asked = rendered(name, said("user: A"))
    begun = rendered(name, said("user: A", "assistant: Well"), "continue")
    between = begun.removeprefix(asked).removesuffix("Well")
    assert begun == f"{asked}{between}Well"
    # Where a template leaves it to the model to begin with a space.
    assert between == (" " if name in ("llama-2", "vicuna") else "")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_asked_for_without_a_generation_prompt(name: str) -> None:
    asked = rendered(name, said("user: A"))
    text = rendered(name, said("user: A"), "nothing")
    assert asked.startswith(text)
    assert (asked == text) == (name in ("llama-2", "mistral-instruct", "raw"))


CARD = {
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nBe terse.\nHow is Bonn?\n\n### Response:\n"
    ),
    "bagel-alpaca": (
        "Below is an instruction that describes a task.  Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nBe terse.\nHow is Bonn?\n\n### Response:\n"
    ),
    "vicuna": "Be terse.\nUSER: How is Bonn?\nASSISTANT:",
    "bagel-chatml": (
        "<s>system\nBe terse.\n</s>\n<s>user\nHow is Bonn?\n</s>\n<s>assistant\n"
    ),
    "llama-2": "<s>[INST] <<SYS>>\nBe terse.\n<</SYS>>\n\nHow is Bonn? [/INST]",
}  # fmt: skip


@pytest.mark.parametrize("name", CARD)
def test_as_the_model_card_has_it(name: str) -> None:
    assert rendered(name, said("system: Be terse.", "user: How is Bonn?")) == CARD[name]


@pytest.mark.parametrize("name", NAMES)
def test_content_may_be_null(name: str) -> None:
    messages: list[dict[str, object]] = [{"role": "assistant", "content": None}]
    assert "None" not in rendered(name, [*said("user: A"), *messages])


@pytest.mark.parametrize("name", NAMES)
def test_the_documentation_shows_what_is_written(name: str) -> None:
    page = (PACKAGE.parent / "docs" / "templates.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    text, stops = re.split(r" (?<!\\)\| ", row.removesuffix(" |"))[1:]
    written = text.removeprefix("<code>").removesuffix("</code>").replace("\\|", "|")
    shown = html.unescape(written).replace("⏎", "\n")
    assert shown == rendered(name, said("user: A", "assistant: B", "user: C"))
    told = stops.replace("\\|", "|")
    assert told == (", ".join(f"`{stop}`" for stop in SHIPPED[name].stops) or "none")
