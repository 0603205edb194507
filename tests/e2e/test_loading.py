"""The time before a model serves: alive, not ready, and honest about it."""

import signal
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.e2e.asking import MODEL, forced, say, sdk_at, user
from tests.e2e.process import (
    ANSWER_S,
    N_THREADS,
    START_S,
    eventually,
    serving,
    until_ready,
    write_config,
)
from tests.e2e.wire import error_of


def test_alive_then_ready(tmp_path: Path, model_path: Path) -> None:
    engine = {"n_ctx": 128, "n_slots": 1, "n_threads": N_THREADS}
    model = {"path": str(model_path), "preload": True, "engine": engine}
    config = write_config(tmp_path, {MODEL: model}, {"load_wait_s": 0.1})
    with serving(config, how=signal.SIGINT) as corral:
        found = list[psutil.Process]()
        # Held up before it has even imported llama.cpp.
        eventually(lambda: bool(found.extend(corral.workers()) or found), "a worker", START_S)
        (worker,) = found
        worker.suspend()
        url = corral.wait_until_it_listens()
        with httpx.Client(base_url=url, timeout=ANSWER_S) as http, sdk_at(url) as sdk:
            assert http.get("/healthz").status_code == 200
            response = http.get("/readyz")
            assert response.status_code == 503
            assert error_of(response.content)["type"] == "server_error"
            assert int(response.headers["retry-after"]) > 0
            assert http.get("/v1/models").json()["data"][0]["id"] == MODEL
            with pytest.raises(openai.InternalServerError) as caught:
                say(sdk, user("Hi"), {})
            assert caught.value.status_code == 503
            assert caught.value.code == "unavailable"
            assert "still loading" in caught.value.message
            assert int(caught.value.response.headers["retry-after"]) > 0
            worker.resume()
            until_ready(http)
            assert say(sdk, user("Hi"), forced(1234, 2))


@pytest.fixture
def config(tmp_path: Path, model_path: Path) -> Path:
    """The demo model, whose requests wait until it serves."""
    engine = {"n_ctx": 128, "n_slots": 1, "n_threads": N_THREADS}
    model = {"path": str(model_path), "preload": True, "engine": engine}
    return write_config(tmp_path, {MODEL: model}, {"load_wait_s": START_S})


def test_a_request_waits_for_its_model(config: Path) -> None:
    with serving(config) as corral, sdk_at(corral.wait_until_it_listens()) as sdk:
        assert say(sdk, user("Hi"), forced(1234, 2))


def test_it_can_be_stopped_while_it_loads(config: Path) -> None:
    with serving(config) as corral:
        corral.wait_until_it_listens()
