"""How tests reach the server that their folder's conftest.py starts as `corral`."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, OpenAI

from tests.e2e.asking import async_sdk_at, sdk_at
from tests.e2e.process import ANSWER_S, Corral, until_ready

__all__ = ["async_sdk", "http", "sdk", "url"]


@pytest.fixture(scope="package")
def url(corral: Corral) -> str:
    """The server's address, once it is ready."""
    url = corral.wait_until_it_listens()
    with httpx.Client(base_url=url, timeout=ANSWER_S) as http:
        until_ready(http)
    return url


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
