"""Many at once: nobody gets another's text, waits for a long prompt, or goes missing."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import httpx
from openai import AsyncOpenAI, AsyncStream, OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from tests.e2e.asking import (
    GREEDY,
    MODEL,
    OTHER,
    Body,
    complete,
    forced,
    until_idle,
    user,
)

TOKENS = range(1010, 1026)
N_TOKENS = 24


@dataclass
class Heard:
    """What one stream brought."""

    text: str = ""
    reason: str | None = None
    n_tokens: int = 0


async def listen(sdk: AsyncOpenAI, question: str, body: Body, model: str = MODEL) -> Heard:
    """One streamed chat, from its first chunk to its usage."""
    heard = Heard()
    stream = await sdk.chat.completions.create(
        model=model,
        messages=[*user(question)],
        stream=True,
        stream_options={"include_usage": True},
        extra_body={**body},
    )
    async for chunk in stream:
        if chunk.usage is not None:
            heard.n_tokens = chunk.usage.completion_tokens
        for choice in chunk.choices:
            heard.text += choice.delta.content or ""
            heard.reason = choice.finish_reason or heard.reason
    return heard


async def test_sixteen_streams_at_once(async_sdk: AsyncOpenAI) -> None:
    """Twice as many as there are slots, each of a token that only it can say."""
    alone = [
        await listen(async_sdk, "Hi", {**forced(token, 2), "cache_prompt": False})
        for token in TOKENS
    ]
    assert len({heard.text for heard in alone}) == len(TOKENS)
    together = await asyncio.gather(
        *(
            listen(async_sdk, f"Question {token}?", forced(token, N_TOKENS + token % 3))
            for token in TOKENS
        )
    )
    for token, one, heard in zip(TOKENS, alone, together, strict=True):
        n = N_TOKENS + token % 3
        assert (heard.n_tokens, heard.reason) == (n, "length")
        assert (heard.text * 2) == one.text * n


WORDS = ("cat", "dog", "red", "blue", "north", "south", "seven", "eight")


async def test_everybody_goes_on_with_their_own_words(async_sdk: AsyncOpenAI) -> None:
    """Decoded together, each by its own logits."""

    async def go_on(word: str) -> str:
        answer = await async_sdk.completions.create(
            model=MODEL, prompt=f"the {word}, " * 12 + "the", temperature=0, max_tokens=16
        )
        return answer.choices[0].text

    for word, text in zip(WORDS, await asyncio.gather(*map(go_on, WORDS)), strict=True):
        assert text.startswith(f" {word}, the {word}, the {word}")


async def test_sixteen_answers_at_once(async_sdk: AsyncOpenAI) -> None:
    """As they come, whole and streamed, sampled and not: all complete, none as another."""
    body = {"max_tokens": 12, "ignore_eos": True}

    async def whole(number: int) -> Heard:
        answer = await async_sdk.chat.completions.create(
            model=MODEL, messages=[*user(f"Tell me about {number}.")], extra_body=body
        )
        (choice,) = answer.choices
        assert answer.usage is not None
        return Heard(
            choice.message.content or "", choice.finish_reason, answer.usage.completion_tokens
        )

    streams = (listen(async_sdk, f"What is {n}?", {**GREEDY, **body}) for n in range(8))
    wholes = (whole(number) for number in range(8))
    for heard in await asyncio.gather(*streams, *wholes):
        assert heard.text
        assert (heard.n_tokens, heard.reason) == (12, "length")


async def test_two_models_at_once(async_sdk: AsyncOpenAI) -> None:
    async def begin(model: str) -> AsyncStream[ChatCompletionChunk]:
        return await async_sdk.chat.completions.create(
            model=model, messages=[*user("Hi")], stream=True, extra_body={**forced(1234, 400)}
        )

    # Both run when both have said something and neither has ended.
    streams = [await begin(MODEL), await begin(OTHER)]
    for stream, model in zip(streams, (MODEL, OTHER), strict=True):
        async for chunk in stream:
            assert chunk.model == model
            assert chunk.choices[0].finish_reason is None
            if chunk.choices[0].delta.content:
                break
    for stream in streams:
        chunk = await anext(stream)
        assert chunk.choices[0].finish_reason is None
        await stream.close()
    heard = await asyncio.gather(
        *(listen(async_sdk, "Hi", forced(1234, 8), model) for model in (MODEL, OTHER) * 2)
    )
    assert len({one.text for one in heard}) == 1


N_RUNNING = 4
LONG = 1400
"""Tokens of the long prompt: 22 steps of the 64 that a step of OTHER takes beside streams."""


async def test_a_long_prompt_does_not_stall_running_streams(
    async_sdk: AsyncOpenAI, sdk: OpenAI, http: httpx.Client
) -> None:
    piece = complete(sdk, "Hi", forced(1234, 1)).choices[0].text
    said = [0] * N_RUNNING
    all_talk = asyncio.Event()

    async def talk(index: int) -> None:
        async for text in pieces(async_sdk, f"Hi {index}", forced(1234, 1900)):
            said[index] += len(text) // len(piece)
            if min(said):
                all_talk.set()

    talkers = [asyncio.create_task(talk(index)) for index in range(N_RUNNING)]
    await all_talk.wait()
    before = list(said)
    long = pieces(async_sdk, [28] * LONG, {**forced(1234, 2), "cache_prompt": False})
    async for _ in long:
        break
    meanwhile = [now - then for now, then in zip(said, before, strict=True)]
    still_talk = not any(talker.done() for talker in talkers)
    await long.aclose()
    for talker in talkers:
        talker.cancel()
    await asyncio.gather(*talkers, return_exceptions=True)
    until_idle(http, OTHER)
    assert still_talk
    assert min(meanwhile) >= 11, meanwhile


async def pieces(sdk: AsyncOpenAI, prompt: str | list[int], body: Body) -> AsyncGenerator[str]:
    """The texts of one streamed completion of OTHER."""
    stream: AsyncStream[Completion] = await sdk.completions.create(
        model=OTHER, prompt=prompt, stream=True, extra_body={**body}
    )
    async with stream:
        async for chunk in stream:
            if chunk.choices[0].text:
                yield chunk.choices[0].text
