"""One server that other people's programs ask."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.asking import MODEL
from tests.e2e.clients import url
from tests.e2e.process import N_THREADS, Corral, serving, write_config

__all__ = ["url"]

OTHER = "another"
"""The same model under another name."""


@pytest.fixture(scope="package")
def corral(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Corral]:
    """The server, of the demo model under two names."""
    # Flash attention and AMX round otherwise, which lm-eval's figures would show.
    exact = {"flash_attn": "off", "use_extra_bufts": False}
    engine = {"n_ctx": 4096, "n_slots": 4, "n_threads": N_THREADS, **exact}
    model = {"path": str(model_path), "preload": True, "engine": engine}
    folder = tmp_path_factory.mktemp("third_party")
    server = {"store": "responses.sqlite"}
    with serving(write_config(folder, {MODEL: model, OTHER: model}, server)) as corral:
        yield corral


@pytest.fixture(scope="package")
def environ(url: str) -> Mapping[str, str]:
    """What the programs need to know."""
    return {"CORRAL_URL": url, "CORRAL_MODEL": MODEL, "CORRAL_OTHER": OTHER}
