"""The official SDK used as its documentation shows it, synchronous and not."""

from collections.abc import Sequence

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.e2e.asking import MODEL

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name three colours."}]
PROMPT = "Red, green,"


def check_chunks(chunks: Sequence[ChatCompletionChunk]) -> str:
    """The text of a stream with usage, after a look at what its chunks share."""
    assert {(c.id, c.created, c.model) for c in chunks} == {
        (chunks[0].id, chunks[0].created, MODEL)
    }
    *pieces, last = chunks
    roles = [piece.choices[0].delta.role for piece in pieces]
    assert roles == ["assistant", *[None] * (len(roles) - 1)]
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")
    assert last.choices == []
    assert last.usage is not None
    return "".join(piece.choices[0].delta.content or "" for piece in pieces)


def test_chat(sdk: OpenAI) -> None:
    whole = sdk.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, max_tokens=12, seed=1, stop=["\n\n"], n=1
    )
    stream = sdk.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        temperature=0,
        max_completion_tokens=12,
        stop="\n\n",
        stream=True,
        stream_options={"include_usage": True},
    )
    assert check_chunks(list(stream)) == whole.choices[0].message.content
    assert whole.to_dict()["object"] == "chat.completion"


async def test_chat_asynchronously(async_sdk: AsyncOpenAI) -> None:
    whole = await async_sdk.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, max_tokens=12
    )
    stream = await async_sdk.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        temperature=0,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert check_chunks(chunks) == whole.choices[0].message.content


def test_the_sdk_folds_a_stream_itself(sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(
        model=MODEL, messages=MESSAGES, temperature=0, max_tokens=64, stop=[" a", "e"], n=2
    ) as stream:
        text = {0: "", 1: ""}
        for event in stream:
            if event.type == "chunk":
                for choice in event.chunk.choices:
                    text[choice.index] += choice.delta.content or ""
        final = stream.get_final_completion()
    # Sent more than once, a role would read assistantassistant.
    assert [choice.message.role for choice in final.choices] == ["assistant"] * 2
    assert [choice.message.content for choice in final.choices] == [text[0], text[1]]
    assert [choice.finish_reason for choice in final.choices] == ["stop"] * 2


def test_completions(sdk: OpenAI) -> None:
    whole = sdk.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8)
    stream = sdk.completions.create(
        model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    assert whole.choices[0].text


async def test_completions_asynchronously(async_sdk: AsyncOpenAI) -> None:
    whole = await async_sdk.completions.create(
        model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8
    )
    stream = await async_sdk.completions.create(
        model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8, stream=True
    )
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text


def test_models(sdk: OpenAI) -> None:
    listed = {model.id: model for model in sdk.models.list()}
    assert sdk.models.retrieve(MODEL) == listed[MODEL]
    assert listed[MODEL].created > 0


def test_what_the_sdk_reads_of_the_headers(sdk: OpenAI) -> None:
    raw = sdk.completions.with_raw_response.create(
        model=MODEL, prompt=PROMPT, max_tokens=1, extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert int(raw.headers["openai-processing-ms"]) >= 0
    answer = sdk.completions.create(model=MODEL, prompt=PROMPT, max_tokens=1)
    assert answer._request_id  # pyright: ignore[reportPrivateUsage]
