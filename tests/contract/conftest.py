"""One server for the whole contract, of a model that serves, a busy one, and one that is none."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, OpenAI

from tests.contract.published import Published, published
from tests.e2e.asking import MODEL, async_sdk_at, sdk_at
from tests.e2e.process import ANSWER_S, N_THREADS, serving, until_ready, write_config

NARROW = "narrow"
"""Answers one request at a time and lets none wait."""

BROKEN = "broken"

MAX_BODY = 256 * 1024


@pytest.fixture(scope="package")
def document() -> Published:
    """OpenAI's document."""
    return published()


@pytest.fixture(scope="package")
def url(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[str]:
    """The address of the server, ready."""
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
        url = corral.wait_until_it_listens()
        with httpx.Client(base_url=url, timeout=ANSWER_S) as http:
            until_ready(http)
        yield url


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """A client for raw requests."""
    with httpx.Client(base_url=url, timeout=ANSWER_S) as client:
        yield client


@pytest.fixture
def sdk(url: str) -> Iterator[OpenAI]:
    """The SDK. It does not try again, so that errors are seen."""
    with sdk_at(url) as client:
        yield client


@pytest_asyncio.fixture
async def async_sdk(url: str) -> AsyncIterator[AsyncOpenAI]:
    """The asynchronous SDK."""
    async with async_sdk_at(url) as client:
        yield client
