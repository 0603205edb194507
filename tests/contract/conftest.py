"""One server for the whole contract, of a model that serves, a busy one, and one that is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.published import Published, published
from tests.e2e.asking import MODEL
from tests.e2e.clients import async_sdk, http, sdk, url
from tests.e2e.process import N_THREADS, Corral, serving, write_config

__all__ = ["async_sdk", "http", "sdk", "url"]

NARROW = "narrow"
"""Answers one request at a time and lets none wait."""

BROKEN = "broken"

MAX_BODY = 256 * 1024


@pytest.fixture(scope="package")
def document() -> Published:
    """OpenAI's document."""
    return published()


@pytest.fixture(scope="package")
def corral(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Corral]:
    """The server."""
    folder = tmp_path_factory.mktemp("contract")
    (folder / "text.gguf").write_text("This is not a model.\n")
    engine = {"n_ctx": 2048, "n_slots": 4, "n_threads": N_THREADS}
    narrow = {**engine, "n_ctx": 1024, "n_slots": 1, "max_waiting": 0}
    config = write_config(
        folder,
        {
            MODEL: {"path": str(model_path), "preload": True, "engine": engine},
            NARROW: {"path": str(model_path), "preload": True, "engine": narrow},
            BROKEN: {"path": "text.gguf"},
        },
        {"max_body": MAX_BODY, "store": "responses.sqlite"},
    )
    with serving(config) as corral:
        yield corral
