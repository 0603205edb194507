"""The examples of README.md and docs/, as they are run against a test's server."""

import re
from pathlib import Path

import httpx

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"\b(?:localhost|127\.0\.0\.1):8000\b")


def blocks(page: Path, language: str, start: str = "") -> list[str]:
    """A page's fenced blocks of a language that begin with `start`; none if there is no page."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return [
        code for found, code in BLOCK.findall(text) if found == language and code.startswith(start)
    ]


def here(code: str, url: str) -> str:
    """The example with the address of the test's server."""
    moved, n = ADDRESS.subn(httpx.URL(url).netloc.decode(), code)
    assert n, "it talks to some other server"
    return moved
