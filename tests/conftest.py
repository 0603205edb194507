"""What the whole suite shares: the real model."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Who runs the suite in the background has it ignored, and so would have all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The demo model. Missing is a failure: without it most of the suite says nothing."""
    path = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.is_file():
        pytest.fail(f"{path} is missing; `make test` fetches it")
    return path


@pytest.fixture(scope="session", autouse=True)
def _no_models_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this user keeps in caches is neither seen nor changed, by programs we start either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
        patch.setenv("CORRAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Other people's programs first: they take longest, and other tests can run beside them."""
    items.sort(key=lambda item: "third_party" not in item.path.parts)


def pytest_unconfigure() -> None:
    """llama_cpp leaves two files open; Python would say so after pytest's last line."""
    utils = sys.modules.get("llama_cpp._utils")
    if utils is not None:
        vars(utils)["outnull_file"].close()
        vars(utils)["errnull_file"].close()
