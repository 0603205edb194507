"""Embeddings through the SDK: of the demo model beside its streams, and of one that only embeds."""

import asyncio
import base64
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from openai import AsyncOpenAI, OpenAI
from openai.types import CreateEmbeddingResponse

from tests import bert
from tests.e2e.asking import FRESH, MODEL, async_sdk_at, sdk_at
from tests.e2e.process import N_THREADS, serving, write_config

EMBEDS = "tiny-bert"
RANKS = "tiny-reranker"
TINY = bert.tiny()
TEXTS = ("the cat sat on the mat", "fish", "what does the dog eat")

Vector = NDArray[np.float32]


@pytest.fixture(scope="module")
def bert_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of two models that do not generate."""
    folder = tmp_path_factory.mktemp("bert")
    TINY.write(folder / "tiny.gguf")
    TINY.with_pooling("rank").write(folder / "rank.gguf")
    engine = {"n_threads": N_THREADS}
    models = {
        EMBEDS: {"path": "tiny.gguf", "engine": engine},
        RANKS: {"path": "rank.gguf", "engine": engine},
    }
    with serving(write_config(folder, models)) as corral:
        yield corral.wait_until_it_listens()


@pytest.fixture
def berts(bert_url: str) -> Iterator[OpenAI]:
    """The SDK for that server."""
    with sdk_at(bert_url) as client:
        yield client


def vectors(answer: CreateEmbeddingResponse) -> list[Vector]:
    assert [item.index for item in answer.data] == [*range(len(answer.data))]
    return [np.array(item.embedding, np.float32) for item in answer.data]


def test_the_sdk_reads_what_the_reference_computes(berts: OpenAI) -> None:
    """Its default is base64."""
    answer = berts.embeddings.create(model=EMBEDS, input=TEXTS)
    assert (answer.object, answer.model) == ("list", EMBEDS)
    n_tokens = sum(len(bert.enclosed(text)) for text in TEXTS)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (n_tokens, n_tokens)
    for found, text in zip(vectors(answer), TEXTS, strict=True):
        expected = TINY.vector(bert.enclosed(text))
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert float(found @ expected) > 0.9999


def test_all_forms_give_the_same(berts: OpenAI, bert_url: str) -> None:
    (expected,) = vectors(berts.embeddings.create(model=EMBEDS, input=TEXTS[0]))
    ids = bert.enclosed(TEXTS[0])
    for given in ([TEXTS[0]], ids, [ids]):
        (found,) = vectors(berts.embeddings.create(model=EMBEDS, input=given))
        np.testing.assert_array_equal(found, expected)
    body = {"model": EMBEDS, "input": TEXTS[0], "encoding_format": "base64"}
    raw = httpx.post(f"{bert_url}/v1/embeddings", json=body).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(raw), "<f4"), expected)
    floats = berts.embeddings.create(model=EMBEDS, input=ids, encoding_format="float")
    np.testing.assert_array_equal(vectors(floats)[0], expected)
    (short,) = vectors(berts.embeddings.create(model=EMBEDS, input=ids, dimensions=8))
    np.testing.assert_allclose(short, expected[:8] / np.linalg.norm(expected[:8]), atol=1e-6)


def test_many_inputs_of_mixed_lengths(berts: OpenAI) -> None:
    texts = [" ".join(TEXTS[0].split() * 9)[: 1 + 7 * (n % 40)].strip() for n in range(300)]
    found = vectors(berts.embeddings.create(model=EMBEDS, input=texts))
    assert len(found) == 300
    for n in (0, 17, 39, 255):
        np.testing.assert_allclose(found[n], TINY.vector(bert.enclosed(texts[n])), atol=1e-3)


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ("", None, "it is empty"),
        (["the", "the " * 63], "context_length_exceeded", "65 tokens, this model takes at most 64"),
        ([[5], [100_257]], None, "token 100257 is not in the vocabulary of"),
        ([[5], [-1]], None, "token -1 is not in the vocabulary of"),
    ],
)
def test_refusals(berts: OpenAI, given: object, code: str | None, message: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        berts.embeddings.create(model=EMBEDS, input=given)  # pyright: ignore[reportArgumentType]
    assert caught.value.code == code
    assert message in caught.value.message
    assert caught.value.param in ("input", "input.1")


def test_what_these_models_are_not_for(berts: OpenAI) -> None:
    reason = "the model tiny-bert gives embeddings, it does not generate text"
    with pytest.raises(openai.BadRequestError, match=reason):
        berts.completions.create(model=EMBEDS, prompt="the cat")
    with pytest.raises(openai.BadRequestError, match="ranks documents and has no embeddings"):
        berts.embeddings.create(model=RANKS, input="the cat")
    with pytest.raises(openai.BadRequestError, match="ranks documents, it does not generate"):
        berts.chat.completions.create(
            model=RANKS, messages=[{"role": "user", "content": "the cat"}]
        )


def test_the_demo_model_embeds(sdk: OpenAI) -> None:
    texts = ["A man is eating food.", "A man is eating some food.", "Stocks fell sharply today."]
    one, same, other = vectors(sdk.embeddings.create(model=MODEL, input=texts))
    assert len(one) == 576
    assert float(one @ one) == pytest.approx(1, abs=1e-4)
    assert float(one @ same) > float(one @ other)


async def test_a_stream_is_not_disturbed(url: str) -> None:
    """It says the same, and goes on while many texts are embedded."""
    async with async_sdk_at(url) as sdk:
        alone, _ = await stream(sdk, asyncio.Event())
        begun = asyncio.Event()
        running = asyncio.create_task(stream(sdk, begun))
        await begun.wait()
        texts = [f"Text {n} of many." for n in range(64)]
        answer = await sdk.embeddings.create(model=MODEL, input=texts)
        ended_before = running.done()
        text, n_chunks = await running
    assert len(answer.data) == 64
    assert text == alone
    assert not ended_before or n_chunks > 10


async def stream(sdk: AsyncOpenAI, begun: asyncio.Event) -> tuple[str, int]:
    """A stream's text and the number of its chunks."""
    text, n_chunks = "", 0
    body = {**FRESH, "max_tokens": 60, "ignore_eos": True}
    chunks = await sdk.completions.create(
        model=MODEL, prompt="Once upon a time", stream=True, extra_body=body
    )
    async for chunk in chunks:
        begun.set()
        n_chunks += 1
        text += chunk.choices[0].text
    return text, n_chunks
