"""LangChain: its standard tests, the guide of docs/langchain.md and the example, as they stand.

The standard tests are programs/langchain_suite.py, which names what is left out and why.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.asking import MODEL
from tests.e2e.pages import blocks, here
from tests.e2e.process import N_THREADS, ROOT, serving, write_config
from tests.third_party.running import HERE, python, run

GUIDE = ROOT / "docs" / "langchain.md"
EXAMPLE = ROOT / "examples" / "langchain_chat.py"
NEXT = "----- the next block -----"


def test_the_standard_tests(environ: Mapping[str, str], tmp_path: Path) -> None:
    run([python(), "-m", "pytest", "-rsxX", "langchain_suite.py"], tmp_path, environ)


@pytest.fixture
def talkative(model_path: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a model that does not end an answer before it has begun, as a small one may."""
    engine = {"n_ctx": 4096, "n_slots": 4, "n_threads": N_THREADS}
    model = {"path": str(model_path), "engine": engine, "sampling": {"min_tokens": 4}}
    with serving(write_config(tmp_path, {MODEL: model})) as corral:
        yield corral.wait_until_it_listens()


def test_the_guide(talkative: str, tmp_path: Path) -> None:
    """Its blocks are one program, and each prints something."""
    parts = blocks(GUIDE, "python")
    assert len(parts) >= 8
    program = tmp_path / "guide.py"
    program.write_text(here(f"print({NEXT!r})\n".join(parts), talkative))
    printed = run([python(), program], tmp_path).split(NEXT)
    assert len(printed) == len(parts)
    assert all(text.strip() for text in printed), printed


def test_what_the_guide_installs() -> None:
    """Is what it was run with."""
    locked = (HERE / "requirements.txt").read_text(encoding="utf-8")
    (line,) = blocks(GUIDE, "sh", "pip install ")
    names = line.split()[2:]
    assert names
    assert [name for name in names if f"\n{name}==" not in locked] == []


def test_the_example(url: str, tmp_path: Path) -> None:
    """A chat of two questions is filed; one of none is not."""

    def chat(said: str, *arguments: str) -> str:
        command = [python(), EXAMPLE, *arguments]
        return run(command, tmp_path, {"CORRAL_URL": f"{url}/v1"}, said=said)

    text = chat("Who are you?\nWhere do you sail?\n\nnever asked\n")
    assert text.count("> ") >= 3
    assert all(answer.strip() for answer in text.split("> ")[1:3]), text
    assert text.rstrip().endswith(("(merry)", "(gloomy)", "(stormy)")), text
    assert chat("", "a cat") == "> "
