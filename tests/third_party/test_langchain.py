"""LangChain: its standard tests, our example of it, and the guide's blocks as they stand.

The standard tests are those of programs/langchain_suite.py, which names what is left out and why.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.e2e.asking import MODEL
from tests.e2e.process import ROOT
from tests.third_party.running import python, run

GUIDE = ROOT / "docs" / "langchain.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_standard_tests(environ: Mapping[str, str], tmp_path: Path) -> None:
    run([python(), "-m", "pytest", "-rsxX", "langchain_suite.py"], tmp_path, environ)


def test_the_example(url: str, environ: Mapping[str, str], tmp_path: Path) -> None:
    own = {**environ, "CORRAL_URL": f"{url}/v1"}
    lines = run([python(), ROOT / "examples/langchain_chat.py", MODEL], tmp_path, own)
    assert re.search(r"^.{1,20}: \d+ legs$", lines, re.MULTILINE)
    assert re.search(r"^France: .*Paris", lines, re.MULTILINE)


def test_the_guide(url: str, environ: Mapping[str, str], tmp_path: Path) -> None:
    """All blocks in one process, since the imports take seconds."""
    blocks = BLOCK.findall(GUIDE.read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    netloc = httpx.URL(url).netloc.decode()
    for block in blocks:
        assert "127.0.0.1:8000" in block
    ends = [f"{block}\nprint('block {n} ends')\n" for n, block in enumerate(blocks)]
    code = "\n".join(ends).replace("127.0.0.1:8000", netloc)
    output = run([python(), "-W", "ignore", "-c", code], tmp_path, environ)
    parts = re.split(r"^block \d+ ends$", output, flags=re.MULTILINE)
    assert len(parts) == len(blocks) + 1
    assert all(part.strip() for part in parts[:-1]), output
