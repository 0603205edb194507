"""docs/from-the-card.md: its blocks as they stand, in their order.

A stand-in of the hub has the card's file: it is the demo model, under the name that the page uses.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from scripts.compiler import GPU_FLAGS
from tests.e2e.pages import BLOCK, here
from tests.e2e.process import ANSWER_S, N_THREADS, ROOT, serving
from tests.e2e.test_readme import values
from tests.gguf_files import write_gguf
from tests.pool.stand_in_hub import serve

PAGE = ROOT / "docs" / "from-the-card.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = BLOCK.findall(TEXT)
REPO = "TheBloke/bagel-dpo-8x7b-v0.2-GGUF"
FILE, OTHER = "bagel-dpo-8x7b-v0.2.Q4_K_M.gguf", "bagel-dpo-8x7b-v0.2.Q4_K_S.gguf"
LINES = [line for kind, code in BLOCKS if kind == "sh" for line in code.splitlines()]
REQUESTS = [code for kind, code in BLOCKS if kind in ("bash", "python")]
ANSWERS = re.compile("corral (run|chat) ")
CORRAL = f'corral() {{ {shlex.quote(sys.executable)} -m server "$@"; }}'


class Ended(NamedTuple):
    """What a line of the page has written."""

    line: str
    output: str


def bounded(line: str) -> str:
    """The line; of an answer without a limit the beginning is read, which ends it."""
    return f"{line} | head -c 8" if ANSWERS.match(line) else line


def run(line: str, folder: Path, environment: dict[str, str]) -> str:
    """What a line writes, with a greeting as its input."""
    done = subprocess.run(
        ["bash", "-euc", f"{CORRAL}\n{bounded(line)}"],
        input="Say hello.\n",
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("card")


@pytest.fixture(scope="module")
def lines(folder: Path, model_path: Path) -> list[Ended]:
    """All lines, one after another in one folder."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "CORRAL_"))}
    ended: list[Ended] = []
    with serve() as hub:
        other = write_gguf(folder.parent / OTHER).read_bytes()
        hub.repos[REPO] = {FILE: model_path.read_bytes(), OTHER: other, "README.md": b"A card."}
        environment = {
            **ours,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
            "PYTHONPATH": str(ROOT),
            # Of the models that are run; the page leaves it to each machine.
            "CORRAL_FOUND__ENGINE__N_THREADS": str(N_THREADS),
        }
        for line in LINES:
            output = ""
            # An answer's first token is drawn, and may be the end.
            for _ in range(4 if ANSWERS.match(line) else 1):
                output = run(line, folder, environment)
                if output.strip():
                    break
            ended.append(Ended(line, output))
        # The pattern has brought the second, and the first was there. A list reads beginnings.
        for file in (FILE, OTHER):
            assert len([sent for sent in hub.sent(file) if sent.range is None]) == 1
    return ended


@pytest.fixture(scope="module")
def at(lines: list[Ended], folder: Path) -> Iterator[str]:
    """The address of a server with the page's configuration, of the file that was pulled."""
    assert lines
    (config,) = (code for kind, code in BLOCKS if kind == "yaml")
    assert "n_threads: 8" in config
    file = folder / "config.yaml"
    file.write_text(config.replace("n_threads: 8", f"n_threads: {N_THREADS}"))
    with serving(file) as corral:
        yield corral.wait_until_it_listens()


def test_every_line_writes_something(lines: list[Ended], folder: Path, model_path: Path) -> None:
    assert len(lines) >= 8
    for line, output in lines:
        assert output.strip(), line
    by_start = {shlex.split(line)[1]: output for line, output in lines}
    assert "Q4_K_M" in by_start["models"]
    assert "template" in by_start["template"]
    pulled = folder / FILE
    assert not pulled.is_symlink()
    assert pulled.stat().st_size == model_path.stat().st_size
    assert (folder / OTHER).is_file()
    assert not (folder / "README.md").exists()


def test_the_line_of_llama_cpp_is_pasted_whole() -> None:
    rest = f"-ngl 35 -m {FILE} --color -c 32768 --temp 0.7 --repeat_penalty 1.1 -n -1 -p "
    assert any(line.startswith(f"corral run {rest}") for line in LINES)


@pytest.mark.parametrize("code", REQUESTS)
def test_requests(at: str, code: str) -> None:
    """Programs that print, and one curl."""
    moved = here(code, at)
    if code.startswith("curl"):
        command = ["bash", "-euo", "pipefail", "-c", moved]
    else:
        command = [sys.executable, "-c", moved]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=ANSWER_S, cwd=ROOT, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.strip()
    if code.startswith("curl"):
        # As TGI answers on this path.
        ((answer,),) = values(done.stdout)
        assert answer["generated_text"]


def test_the_context_is_the_page_s(at: str) -> None:
    info = httpx.get(f"{at}/info", timeout=ANSWER_S).json()
    assert info["max_total_tokens"] == 4096


def test_the_builds_exist() -> None:
    named = re.findall(r"make serve GPU=(\w+)", TEXT)
    assert set(named) == GPU_FLAGS.keys() - {"none"}


def test_every_block_is_run() -> None:
    assert TEXT.count("```") == 2 * len(BLOCKS)
    assert {kind for kind, _ in BLOCKS} == {"sh", "bash", "python", "yaml"}


def test_the_settings_exist() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    keys = re.findall(r"`((?:models\.ID|server|pool)\.[\w.]+)", TEXT)
    assert len(set(keys)) >= 4
    for key in keys:
        assert f"| `{key}" in table, key
