"""What the whole suite shares: the real model."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The demo model. Missing is a failure: without it most of the suite says nothing."""
    path = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.is_file():
        pytest.fail(f"{path} is missing; `make test` fetches it")
    return path


def pytest_unconfigure() -> None:
    """llama_cpp leaves two files open; Python would say so after pytest's last line."""
    utils = sys.modules.get("llama_cpp._utils")
    if utils is not None:
        vars(utils)["outnull_file"].close()
        vars(utils)["errnull_file"].close()
