"""One server for most of the tests; those that kill or configure start their own."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.e2e.asking import LATER, MODEL, OTHER, sdk_at
from tests.e2e.clients import async_sdk, http, sdk, url
from tests.e2e.process import ANSWER_S, N_THREADS, Corral, serving, until_ready, write_config

__all__ = ["async_sdk", "http", "sdk", "url"]

N_CTX = 2048
LONE_N_CTX = 512

BROKEN = {
    "broken/truncated": "truncated.gguf",
    "broken/not-a-gguf": "text.gguf",
    "broken/missing": "missing.gguf",
}


@pytest.fixture(scope="package")
def corral(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Corral]:
    """A server of the demo model under three ids and of three files that are none."""
    folder = tmp_path_factory.mktemp("corral")
    with model_path.open("rb") as file:
        (folder / "truncated.gguf").write_bytes(file.read(4_000_000))
    (folder / "text.gguf").write_text("This is not a model.\n" * 100)
    engine = {"n_ctx": N_CTX, "n_slots": 8, "n_threads": N_THREADS}
    config = write_config(
        folder,
        {
            MODEL: {"path": str(model_path), "preload": True, "engine": engine},
            OTHER: {"path": str(model_path), "engine": {**engine, "n_slots": 5, "prefill_ms": 1}},
            LATER: {"path": str(model_path), "engine": {**engine, "n_ctx": 256, "n_slots": 1}},
            **{id: {"path": name} for id, name in BROKEN.items()},
        },
    )
    with serving(config) as corral:
        yield corral


@dataclass(frozen=True)
class Lone:
    """A server of its own, with the demo model alone, and a client for raw requests."""

    corral: Corral
    url: str
    http: httpx.Client

    def sdk(self) -> OpenAI:
        """The SDK, to be closed."""
        return sdk_at(self.url)


@contextmanager
def lone(
    folder: Path, model: Path, server: Mapping[str, object], engine: Mapping[str, object]
) -> Generator[Lone]:
    """A ready server with these settings."""
    config = write_config(
        folder,
        {
            MODEL: {
                "path": str(model),
                "preload": True,
                "engine": {"n_ctx": LONE_N_CTX, "n_slots": 2, "n_threads": N_THREADS, **engine},
            }
        },
        server,
    )
    with serving(config) as corral:
        url = corral.wait_until_it_listens()
        with httpx.Client(base_url=url, timeout=ANSWER_S) as http:
            until_ready(http)
            yield Lone(corral, url, http)


@pytest.fixture(scope="package")
def strict(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Lone]:
    """A strict server that answers one request at a time and takes small bodies only."""
    server = {"unknown_fields": "strict", "max_body": "64KiB"}
    engine = {"n_slots": 1, "max_waiting": 0}
    with lone(tmp_path_factory.mktemp("strict"), model_path, server, engine) as strict:
        yield strict


@pytest.fixture(scope="package")
def lax(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Lone]:
    """A server that says nothing about fields it does not serve."""
    with lone(tmp_path_factory.mktemp("lax"), model_path, {"unknown_fields": "lax"}, {}) as lax:
        yield lax
