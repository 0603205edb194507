"""The server is told to stop, or is killed, while it answers."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from openai import Stream
from openai.types.chat import ChatCompletionChunk

from tests.e2e.asking import MODEL, Body, forced, say, sdk_at, user
from tests.e2e.conftest import Lone, lone
from tests.e2e.process import N_THREADS, STOP_S, Corral, write_config

ENDLESS: Body = {"max_tokens": 7000, "ignore_eos": True, "temperature": 0}


@pytest.fixture
def doomed(tmp_path: Path, model_path: Path) -> Iterator[Lone]:
    """A server that is going to be stopped in the middle of a long answer."""
    with lone(tmp_path, model_path, {}, {"n_ctx": 8192}) as doomed:
        yield doomed


@pytest.fixture
def stream(doomed: Lone) -> Iterator[Stream[ChatCompletionChunk]]:
    """The long answer, begun."""
    with doomed.sdk() as sdk:
        stream = sdk.chat.completions.create(
            model=MODEL, messages=[*user("Hi")], stream=True, extra_body={**ENDLESS}
        )
        next(stream)
        yield stream


def test_told_to_stop(doomed: Lone, stream: Stream[ChatCompletionChunk]) -> None:
    doomed.corral.workers()
    doomed.corral.process.terminate()
    # A cut answer must not look complete.
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "unavailable"
    doomed.corral.process.wait(STOP_S)
    with pytest.raises(httpx.ConnectError):
        doomed.http.get("/healthz")
    assert "worker died" not in doomed.corral.log.text


def test_told_to_stop_with_its_workers(doomed: Lone, stream: Stream[ChatCompletionChunk]) -> None:
    """As systemd does: the same signal to every process at once."""
    for process in (*doomed.corral.workers(), psutil.Process(doomed.corral.process.pid)):
        process.terminate()
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "unavailable"
    doomed.corral.process.wait(STOP_S)
    assert "worker died" not in doomed.corral.log.text


def test_killed(tmp_path: Path, model_path: Path) -> None:
    """A server that cannot say good-bye leaves no worker behind."""
    engine = {"n_ctx": 128, "n_slots": 1, "n_threads": N_THREADS}
    model = {"path": str(model_path), "preload": True, "engine": engine}
    corral = Corral(write_config(tmp_path, {MODEL: model}))
    try:
        with sdk_at(corral.wait_until_it_listens()) as sdk:
            assert say(sdk, user("Hi"), forced(1234, 2))
        workers = corral.workers()
        corral.process.kill()
        assert len(workers) == 1
        gone, _ = psutil.wait_procs(workers, timeout=STOP_S)
        assert gone == workers
    finally:
        corral.kill()
