"""The official client against the app: answers, streams and its classes of errors."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from server import errors
from server.errors import CorralError
from server.ipc import Accepted, Delta
from tests.api.scripted import HELLO, MODEL, Script, ScriptedPool, build, fail

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]


@asynccontextmanager
async def sdk(script: Script = HELLO) -> AsyncGenerator[tuple[AsyncOpenAI, ScriptedPool]]:
    app, pool = build(script)
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
    async with AsyncOpenAI(
        base_url="http://corral/v1", api_key="sk-no-key", http_client=http, max_retries=0
    ) as client:
        yield client, pool


async def test_chat() -> None:
    async with sdk() as (client, pool):
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            temperature=0.5,
            seed=1,
            extra_body={"top_k": 3, "min_p": 0.1},
        )
    assert answer.choices[0].message.content == "Hello world"
    assert answer._request_id  # pyright: ignore[reportPrivateUsage]
    sampling = pool.scripted.requests[0].sampling
    assert (sampling.temperature, sampling.top_k, sampling.min_p) == (0.5, 3, 0.1)


async def test_streamed_chat() -> None:
    async with (
        sdk() as (client, _),
        client.chat.completions.stream(
            model=MODEL, messages=MESSAGES, n=2, stream_options={"include_usage": True}
        ) as stream,
    ):
        answer = await stream.get_final_completion()
    assert [choice.message.content for choice in answer.choices] == ["Hello world"] * 2
    assert {choice.message.role for choice in answer.choices} == {"assistant"}
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    assert answer.usage and answer.usage.total_tokens == 13


async def test_completions() -> None:
    async with sdk() as (client, _):
        answer = await client.completions.create(model=MODEL, prompt=[[1, 2], [3]])
        stream = await client.completions.create(model=MODEL, prompt="Hi", stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert [choice.text for choice in answer.choices] == ["Hello world"] * 2
    assert text == "Hello world"


async def test_models() -> None:
    async with sdk() as (client, _):
        assert [model.id async for model in client.models.list()] == [MODEL, "other"]
        assert (await client.models.retrieve(MODEL)).id == MODEL


RAISED: Mapping[type[CorralError], type[openai.APIStatusError]] = {
    errors.InvalidRequest: openai.BadRequestError,
    errors.ContextLengthExceeded: openai.BadRequestError,
    errors.ModelNotFound: openai.NotFoundError,
    errors.QueueFull: openai.RateLimitError,
    errors.Unavailable: openai.InternalServerError,
    errors.WorkerDied: openai.InternalServerError,
}


@pytest.mark.parametrize("cls", RAISED)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_before_the_headers(cls: type[CorralError], stream: bool) -> None:
    async with sdk(fail(cls("what went wrong"))) as (client, _):
        with pytest.raises(RAISED[cls], match="what went wrong") as caught:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=stream)
    assert caught.value.request_id


async def test_an_error_in_the_stream_is_raised() -> None:
    script = fail(errors.WorkerDied("gone"), Accepted(0, 7), Delta(0, "Hel", 1))
    async with sdk(script) as (client, _):
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        seen: list[str] = []
        with pytest.raises(openai.APIError, match="gone") as caught:
            async for chunk in stream:
                seen.append(chunk.choices[0].delta.content or "")
    assert "".join(seen) == "Hel"
    assert caught.value.code == "worker_died"


async def test_what_cannot_help_is_not_tried_again() -> None:
    async with sdk(fail(errors.ModelLoadError("not a GGUF"))) as (client, pool):
        patient = client.with_options(max_retries=2)
        with pytest.raises(openai.InternalServerError, match="not a GGUF"):
            await patient.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert len(pool.scripted.requests) == 1
