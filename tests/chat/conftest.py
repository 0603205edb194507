"""The public chat templates, from the source distribution that the peers are built of too."""

from pathlib import Path

import pytest

from bench.build import ensure_source, open_cache


@pytest.fixture(scope="session")
def public_templates() -> Path:
    """The folder of llama.cpp's templates; downloaded once. Fails where it cannot be had."""
    cache = open_cache()
    ensure_source(cache)
    return cache.source / "vendor" / "llama.cpp" / "models" / "templates"
