"""One server that other people's programs ask."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.e2e.asking import MODEL
from tests.e2e.process import ANSWER_S, N_THREADS, Corral, serving, until_ready, write_config

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
def url(corral: Corral) -> str:
    """Its address, ready."""
    url = corral.wait_until_it_listens()
    with httpx.Client(base_url=url, timeout=ANSWER_S) as http:
        until_ready(http)
    return url


@pytest.fixture(scope="package")
def environ(url: str) -> Mapping[str, str]:
    """What the programs need to know."""
    return {"CORRAL_URL": url, "CORRAL_MODEL": MODEL, "CORRAL_OTHER": OTHER}
