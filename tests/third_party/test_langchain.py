"""LangChain's standard tests: programs/langchain_suite.py, which names what is left out and why."""

from collections.abc import Mapping
from pathlib import Path

from tests.third_party.running import python, run


def test_the_standard_tests(environ: Mapping[str, str], tmp_path: Path) -> None:
    run([python(), "-m", "pytest", "-rsxX", "langchain_suite.py"], tmp_path, environ)
