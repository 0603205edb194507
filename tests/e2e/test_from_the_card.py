"""docs/from-the-card.md, run as it stands: the demo model plays the card's, on a hub of our own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from scripts.compiler import GPU_FLAGS
from tests.e2e.pages import blocks, here, run, values
from tests.e2e.process import ANSWER_S, ROOT, serving, until_ready
from tests.gguf_files import write_gguf
from tests.pool.stand_in_hub import serve

PAGE = ROOT / "docs" / "from-the-card.md"
TEXT = PAGE.read_text(encoding="utf-8")
REPO = "TheBloke/bagel-dpo-8x7b-v0.2-GGUF"
FILE, OTHER = "bagel-dpo-8x7b-v0.2.Q4_K_M.gguf", "bagel-dpo-8x7b-v0.2.Q4_K_S.gguf"

COMMANDS = blocks(PAGE, "sh")
SERVE = "corral serve --port 3000\n"
PULLS = [code for code in COMMANDS if "corral pull" in code]
ENDLESS = [code for code in COMMANDS if " -n -1 " in code]
"""Those whose answers end when the model likes."""
OTHERS = [code for code in COMMANDS if code not in (SERVE, *PULLS, *ENDLESS)]

N_CTX = 32768
LENGTH = b"llama.context_length" + (4).to_bytes(4, "little")
"""The key and its type."""


@dataclass(frozen=True)
class Place:
    """A folder with what was pulled, and the environment of a user who stands in it."""

    folder: Path
    env: dict[str, str]


def bash(code: str) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c", code]


def trained_longer(model: Path) -> bytes:
    """The model, which says that it was trained for the card's context."""
    data = bytearray(model.read_bytes())
    at = data.index(LENGTH) + len(LENGTH)
    data[at : at + 4] = N_CTX.to_bytes(4, "little")
    return bytes(data)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Place]:
    """After the downloads of the page."""
    folder, programs = tmp_path_factory.mktemp("card"), tmp_path_factory.mktemp("bin")
    program = programs / "corral"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m server "$@"\n')
    program.chmod(0o755)
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    with serve() as hub:
        small = write_gguf(programs / OTHER).read_bytes()
        hub.repos[REPO] = {FILE: trained_longer(model_path), OTHER: small}
        env = ours | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(programs),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CORRAL_FOUND__ENGINE__N_THREADS": "1",
        }
        for code in PULLS:
            assert FILE in run(bash(code), folder, env)
        assert (folder / FILE).read_bytes() == hub.repos[REPO][FILE]
        assert (folder / OTHER).read_bytes() == small
        # Each once: what is there is not fetched again.
        assert len(hub.sent(FILE)) == len(hub.sent(OTHER)) == 1
        yield Place(folder, env)


@pytest.fixture(scope="module")
def url(place: Place) -> Iterator[str]:
    """A server of the page's configuration, but for the threads."""
    (code,) = blocks(PAGE, "yaml")
    assert "n_threads: 8" in code
    config = place.folder / "config.yaml"
    config.write_text(code.replace("n_threads: 8", "n_threads: 1"))
    with serving(config) as corral:
        url = corral.wait_until_it_listens()
        with httpx.Client(base_url=url, timeout=ANSWER_S) as http:
            until_ready(http)
            (model,) = http.get("/v1/models").json()["data"]
        assert model["id"] == "bagel-dpo-8x7b"
        yield url


def test_every_block_is_run() -> None:
    assert SERVE in COMMANDS
    assert len(PULLS) == len(ENDLESS) == 2
    assert len(OTHERS) >= 4
    n_http = len(blocks(PAGE, "bash")) + len(blocks(PAGE, "python"))
    assert n_http == len(blocks(PAGE, "bash", "curl")) + len(blocks(PAGE, "python", "from"))
    assert TEXT.count("```") == 2 * (len(COMMANDS) + n_http + len(blocks(PAGE, "yaml")))


@pytest.mark.parametrize("code", OTHERS)
def test_command(place: Place, code: str) -> None:
    assert run(bash(code), place.folder, place.env, "Say hello.\n").strip()


@pytest.mark.parametrize("code", ENDLESS)
def test_command_that_writes_on(place: Place, code: str) -> None:
    """Its first words are read, then nobody reads on, unless it has ended."""
    with subprocess.Popen(
        bash(code),
        cwd=place.folder,
        env=place.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"Write a story about llamas.\n")
        process.stdin.close()
        start = process.stdout.read(12)
        process.stdout.close()
        assert process.wait(ANSWER_S) in (0, 1)
        assert process.stderr.read() == b""
        assert start.strip()


@pytest.mark.parametrize("code", blocks(PAGE, "bash"))
def test_curl(url: str, code: str) -> None:
    (answer,) = values(run(bash(here(code, url))))
    assert answer["generated_text"]


@pytest.mark.parametrize("code", blocks(PAGE, "python"))
def test_python(url: str, code: str) -> None:
    assert len(run([sys.executable, "-c", here(code, url)]).split()) > 5


def test_the_settings_exist() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    keys = re.findall(r"`((?:models\.ID|engine|sampling|server)\.\w+)", TEXT)
    assert len(set(keys)) >= 8
    for key in keys:
        full = key if key.startswith(("models", "server")) else f"models.ID.{key}"
        assert f"| `{full}` |" in table, key


def test_the_gpus_exist() -> None:
    assert {*re.findall(r"make serve GPU=(\w+)", TEXT)} == GPU_FLAGS.keys() - {"none"}
