"""The time before a model serves: alive, not ready, and honest about it."""

import asyncio
import signal
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import openai
import psutil
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.asking import MODEL, async_sdk_at, forced, say, sdk_at, user
from tests.e2e.process import (
    ANSWER_S,
    N_THREADS,
    START_S,
    Corral,
    eventually,
    serving,
    until_ready,
    write_config,
)
from tests.e2e.wire import error_of


def held_up(corral: Corral) -> psutil.Process:
    """The worker of a server that starts, stopped before it has even imported llama.cpp."""
    found = list[psutil.Process]()
    eventually(lambda: bool(found.extend(corral.started()) or found), "a worker", START_S)
    (worker,) = found
    worker.suspend()
    return worker


def test_alive_then_ready(tmp_path: Path, model_path: Path) -> None:
    engine = {"n_ctx": 128, "n_slots": 1, "n_threads": N_THREADS}
    model = {"path": str(model_path), "preload": True, "engine": engine}
    config = write_config(tmp_path, {MODEL: model}, {"load_wait_s": 0.1})
    with serving(config, how=signal.SIGINT) as corral:
        worker = held_up(corral)
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


class Told(NamedTuple):
    """A worker that has not come far, and two clients of its server."""

    worker: psutil.Process
    sdk: OpenAI
    later: AsyncOpenAI


@contextmanager
def loading(config: Path) -> Generator[Told]:
    """A server whose only model does not get on with its load."""
    with serving(config) as corral:
        worker = held_up(corral)
        url = corral.wait_until_it_listens()
        with sdk_at(url) as sdk:
            yield Told(worker, sdk, async_sdk_at(url))


def chatted(told: Told) -> str:
    stream = told.sdk.chat.completions.create(
        model=MODEL, messages=[*user("Hi")], max_tokens=4, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def completed(told: Told) -> str:
    stream = told.sdk.completions.create(model=MODEL, prompt="Once", max_tokens=4, stream=True)
    return "".join(chunk.choices[0].text for chunk in stream)


def responded(told: Told) -> str:
    stream = told.sdk.responses.create(
        model=MODEL, input="Hi", max_output_tokens=4, temperature=0, stream=True
    )
    return "".join(e.delta for e in stream if e.type == "response.output_text.delta")


async def chatted_later(told: Told) -> str:
    async with told.later as sdk:
        stream = await sdk.chat.completions.create(
            model=MODEL, messages=[*user("Hi")], max_tokens=4, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


SAY: list[Callable[[Told], str]] = [
    chatted,
    completed,
    responded,
    lambda told: asyncio.run(chatted_later(told)),
]


def until_told(told: Told) -> None:
    """Wait until a stream that came after all others has been told of the load."""
    body = {"model": MODEL, "prompt": "Once", "max_tokens": 1, "stream": True}
    with (
        httpx.Client(base_url=str(told.sdk.base_url), timeout=ANSWER_S) as http,
        http.stream("POST", "completions", json=body) as response,
    ):
        assert response.status_code == 200
        assert next(response.iter_lines()).startswith(": loading ")


def test_the_sdk_reads_streams_that_begin_before_their_model(config: Path) -> None:
    with loading(config) as told, ThreadPoolExecutor(len(SAY)) as pool:
        saying = [pool.submit(say, told) for say in SAY]
        until_told(told)
        assert not any(each.done() for each in saying)
        told.worker.resume()
        assert all(each.result(ANSWER_S) for each in saying)


def test_the_sdk_raises_what_comes_of_such_a_stream(config: Path) -> None:
    with loading(config) as told, ThreadPoolExecutor(len(SAY)) as pool:
        saying = [pool.submit(say, told) for say in SAY]
        until_told(told)
        told.worker.kill()
        for each in saying:
            with pytest.raises(openai.APIError, match="SIGKILL") as caught:
                each.result(ANSWER_S)
            assert caught.value.code == "model_load_error"


def test_it_can_be_stopped_while_a_stream_waits(config: Path) -> None:
    with loading(config) as told, ThreadPoolExecutor(1) as pool:
        saying = pool.submit(completed, told)
        until_told(told)
        server = told.worker.parent()
        assert server is not None
        server.terminate()
        with pytest.raises(openai.APIError, match="stopping") as caught:
            saying.result(ANSWER_S)
        assert caught.value.code == "unavailable"
