"""A worker that is killed costs its running requests, and nothing else."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from openai import OpenAI, Stream
from openai.types.chat import ChatCompletionChunk

from tests.e2e.asking import MODEL, Body, chat, chat_body, forced, say, scrape, user
from tests.e2e.conftest import Lone, lone
from tests.e2e.process import ANSWER_S, eventually
from tests.e2e.wire import error_of, events

ENDLESS: Body = {"max_tokens": 450, "ignore_eos": True, "temperature": 0}


@pytest.fixture
def mortal(tmp_path: Path, model_path: Path) -> Iterator[Lone]:
    """A server whose worker is going to be killed."""
    with lone(tmp_path, model_path, {}, {}) as mortal:
        yield mortal


def begin(sdk: OpenAI, question: str) -> Stream[ChatCompletionChunk]:
    """A stream that has said something and goes on."""
    stream = sdk.chat.completions.create(
        model=MODEL, messages=[*user(question)], stream=True, extra_body={**ENDLESS}
    )
    assert any(chunk.choices[0].delta.content for chunk in stream)
    return stream


def kill_worker(mortal: Lone) -> None:
    """Kill the worker and see that the server lives."""
    worker = mortal.corral.worker()
    worker.kill()
    assert mortal.http.get("/healthz").status_code == 200
    eventually(lambda: not worker.is_running(), "the worker is gone")
    assert mortal.http.get("/healthz").status_code == 200


def test_running_requests_fail_and_the_next_works(mortal: Lone) -> None:
    with mortal.sdk() as sdk, ThreadPoolExecutor(1) as pool:
        body = chat_body(user("All at once"), ENDLESS)
        whole = pool.submit(mortal.http.post, "/v1/chat/completions", json=body)
        eventually(lambda: scrape(mortal.http).load(MODEL) == (1, 0), "one runs")
        stream = begin(sdk, "Bit by bit")
        killed = mortal.corral.worker().pid
        kill_worker(mortal)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "worker_died"
        assert "SIGKILL" in caught.value.message
        response = whole.result(ANSWER_S)
        assert response.status_code == 500
        assert error_of(response.content)["code"] == "worker_died"
        # Answered by the next worker, without another try of the client's.
        assert chat(sdk, user("Hi"), {"max_tokens": 2}).usage
        assert mortal.http.get("/readyz").status_code == 200
        assert mortal.corral.worker().pid != killed
        assert scrape(mortal.http).load(MODEL) == (0, 0)


def test_the_error_is_the_last_event(mortal: Lone) -> None:
    body = chat_body(user("Hi"), {**ENDLESS, "stream": True})
    with mortal.http.stream("POST", "/v1/chat/completions", json=body) as response:
        received = b""
        killed = False
        for data in response.iter_bytes():
            received += data
            if b'"content":"' in received and not killed:
                killed = True
                mortal.corral.worker().kill()
    *chunks, last = events(received)
    assert error_of(last)["code"] == "worker_died"
    assert all('"finish_reason":null' in chunk for chunk in chunks)
    # A client that tries again by itself need not know.
    with mortal.sdk().with_options(max_retries=2) as sdk:
        assert say(sdk, user("Hi"), forced(1234, 2))


def test_a_request_that_was_there_twice_is_refused(mortal: Lone) -> None:
    with mortal.sdk() as sdk:
        for _ in range(2):
            stream = begin(sdk, "Of death")
            kill_worker(mortal)
            with pytest.raises(openai.APIError):
                list(stream)
        # A stream that begins before its model is loaded could not say it by its status.
        eventually(lambda: mortal.http.get("/readyz").is_success, "it serves again")
        with pytest.raises(openai.BadRequestError) as caught:
            begin(sdk, "Of death")
        assert caught.value.code == "request_refused"
        assert "2 times when its worker died" in caught.value.message
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert say(sdk, user("Of life"), forced(1234, 2))
        # The same words with another wish are another request.
        assert say(sdk, user("Of death"), forced(1234, 2))
