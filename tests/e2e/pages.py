"""The examples of README.md and docs/, as they are run against a test's server."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.process import ANSWER_S, ROOT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"\b(?:localhost|127\.0\.0\.1):[38]000\b")


def blocks(page: Path, language: str, start: str = "") -> list[str]:
    """A page's fenced blocks of a language that begin with `start`; none if there is no page."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return [
        code for found, code in BLOCK.findall(text) if found == language and code.startswith(start)
    ]


def run(
    command: list[str], folder: Path = ROOT, env: Mapping[str, str] | None = None, said: str = ""
) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        cwd=folder,
        env=env,
        input=said,
        check=False,
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


def here(code: str, url: str) -> str:
    """The example with the address of the test's server."""
    moved, n = ADDRESS.subn(httpx.URL(url).netloc.decode(), code)
    assert n, "it talks to some other server"
    return moved
