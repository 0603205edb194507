"""examples/, run as they stand against the test's server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI
from rewoo import STEP_TOKENS, Model, tools_of
from rewoo_plan import grammar, parse

from tests.e2e.asking import MODEL
from tests.e2e.process import ANSWER_S, ROOT

FOLDER = ROOT / "examples"

IMPORTED = ("rewoo_plan.py", "rewoo_tools.py")

HORSES = (
    "Horses eat grass. They are fast, and people have ridden them for ages. They live in herds."
)


def run(url: str, name: str, *args: str, said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, str(FOLDER / name), *args),
        input=said,
        env={**os.environ, "CORRAL_URL": f"{url}/v1"},
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        check=False,
    )


def output(url: str, name: str, *args: str, said: str = "") -> str:
    """The standard output of an example that must succeed."""
    done = run(url, name, *args, said=said)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_all_are_run() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    names = [path.name for path in FOLDER.glob("*.py") if path.name not in IMPORTED]
    assert len(names) >= 4
    text += (ROOT / "tests/third_party/test_langchain.py").read_text(encoding="utf-8")
    assert [name for name in names if f'"{name}"' not in text] == []


def test_chat_in_the_terminal(url: str) -> None:
    said = "My name is Ada.\nWhat is my name?\n\nnever asked\n"
    text = output(url, "chat_in_the_terminal.py", said=said)
    assert text.count("> ") == 3
    assert all(len(answer.strip()) > 1 for answer in text.split("> ")[1:3])
    assert output(url, "chat_in_the_terminal.py", "org/tiny.Q4_1", said="") == "> "


def test_contextual_qa(url: str) -> None:
    assert output(url, "contextual_qa.py").strip()
    assert output(url, "contextual_qa.py", "When is the library closed?").strip()


def test_summarise(url: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(HORSES)
    assert output(url, "summarise.py", str(file)).strip()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("Horses eat grass. " * 1000, "context"), ("a\nENDINPUT\nb", "documents.0.text")],
)
def test_what_cannot_be_summarised(url: str, tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "text.txt"
    file.write_text(text)
    done = run(url, "summarise.py", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{file}: ") and reason in done.stderr


def test_function_calling(url: str) -> None:
    lines = output(url, "function_calling.py").splitlines()
    called, answer = lines[0], "\n".join(lines[1:])
    found = re.fullmatch(r"count_word\((\{.*\})\) = (\d+)", called)
    assert found
    source = (FOLDER / "function_calling.py").read_text(encoding="utf-8")
    assert source.count(json.loads(found[1])["word"]) == int(found[2])
    assert answer.strip()


def test_rewoo(url: str, tmp_path: Path) -> None:
    options = ("--max-steps", "2", "--documents")
    library = str(FOLDER / "library")
    plan = output(url, "rewoo.py", *options, library, "--show-plan", "When is the library open?")
    steps, _ = parse(plan, tools_of(Model(url, ""), FOLDER / "library", ()), 2)
    assert [step.number for step in steps] == list(range(len(steps)))
    assert steps[0].tool == "Search"
    # Whatever the small model looks for is found.
    (tmp_path / "any.txt").write_text(f"About {plan.partition('Answer:')[0]}")
    done = run(url, "rewoo.py", *options, str(tmp_path), "--plan", "-", said=plan)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith(":evidence")]
    assert told == [str(step) for step in steps]


@pytest.mark.parametrize("seed", range(2))
def test_a_plan_keeps_its_form_however_wild_it_is(sdk: OpenAI, tmp_path: Path, seed: int) -> None:
    (tmp_path / "a.txt").write_text("text")
    tools = tools_of(Model("http://127.0.0.1:9", ""), tmp_path, ("a.example",))
    shown = [{"type": "function", "function": {"name": name}} for name in tools]
    (choice,) = sdk.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "How is Bonn?"}],
        temperature=1.5,
        seed=seed,
        max_tokens=2 * STEP_TOKENS,
        extra_body={"chat_template": "rewoo", "tools": shown, "lark": grammar(tools, 2)},
    ).choices
    assert choice.finish_reason == "stop" and choice.message.tool_calls is None
    assert 1 <= len(parse(choice.message.content or "", tools, 2).steps) <= 2
