"""The examples of README.md, run as they stand against the test's server."""

import json
import subprocess
import sys
from typing import Any, cast

import pytest

from tests.e2e.pages import blocks, here
from tests.e2e.process import ANSWER_S, ROOT

README = ROOT / "README.md"

CURLS = blocks(README, "bash", "curl")
SCRIPTS = blocks(README, "python")


def run(command: list[str]) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=ANSWER_S, cwd=ROOT, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def values(output: str) -> list[Any]:
    """The JSON values of an output, one after another or as server-sent events."""
    if output.lstrip().startswith("data: "):
        datas = [line.removeprefix("data: ") for line in output.splitlines() if line]
        assert datas[-1] == "[DONE]"
        return [json.loads(data) for data in datas[:-1]]
    decoder = json.JSONDecoder()
    found: list[Any] = []
    output = output.strip()
    while output:
        value, end = decoder.raw_decode(output)
        found.append(value)
        output = output[end:].lstrip()
    return found


def test_there_are_examples() -> None:
    assert CURLS
    assert SCRIPTS


@pytest.mark.parametrize("code", CURLS)
def test_curl(url: str, code: str) -> None:
    answers = values(run(["bash", "-euo", "pipefail", "-c", here(code, url)]))
    assert answers
    for answer in answers:
        assert isinstance(answer, dict)
        assert cast("dict[str, object]", answer).get("error") is None


@pytest.mark.parametrize("code", SCRIPTS)
def test_python(url: str, code: str) -> None:
    assert run([sys.executable, "-c", here(code, url)]).strip()
