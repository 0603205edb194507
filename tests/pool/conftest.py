"""A hub to fetch from."""

from collections.abc import Generator

import pytest
from huggingface_hub import close_session

from tests.pool.stand_in_hub import StandIn, serve


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Generator[StandIn]:
    """Without a token from around us."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serve() as hub:
        yield hub
        close_session()
