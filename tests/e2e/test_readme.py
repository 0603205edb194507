"""The examples of README.md, run as they stand against the test's server."""

import sys
from typing import cast

import pytest

from tests.e2e.pages import blocks, here, run, values
from tests.e2e.process import ROOT

README = ROOT / "README.md"
CURLS = blocks(README, "bash", "curl")
SCRIPTS = blocks(README, "python")


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
