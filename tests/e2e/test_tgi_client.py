"""huggingface_hub's InferenceClient, which was made for TGI."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import (
    InferenceClient,
    TextGenerationInputGrammarType,
    TextGenerationOutput,
    TextGenerationStreamOutput,
)
from huggingface_hub.errors import ValidationError
from openai import OpenAI

from tests.e2e.asking import FRESH, MODEL, complete, user
from tests.e2e.conftest import N_CTX
from tests.e2e.test_tgi import AGED, STORY


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """The client, whose types leave too much open."""
    with InferenceClient(url) as client:
        yield client


def test_a_text(client: Any, sdk: OpenAI) -> None:
    expected = complete(sdk, STORY, {**FRESH, "max_tokens": 16}).choices[0].text
    assert client.text_generation(STORY, max_new_tokens=16) == STORY + expected
    short = client.text_generation(STORY, max_new_tokens=16, return_full_text=False)
    assert short == expected
    pieces = client.text_generation(STORY, max_new_tokens=16, stream=True)
    assert "".join(pieces) == expected


def test_details(client: Any) -> None:
    told = client.text_generation(
        STORY,
        details=True,
        best_of=2,
        decoder_input_details=True,
        do_sample=True,
        frequency_penalty=0.1,
        max_new_tokens=8,
        repetition_penalty=1.1,
        return_full_text=False,
        stop=["zzz"],
        temperature=0.8,
        top_k=30,
        top_n_tokens=2,
        top_p=0.95,
        truncate=5,
        typical_p=0.95,
        watermark=False,
    )
    assert isinstance(told, TextGenerationOutput)
    assert told.details is not None
    # It draws its tokens, and may draw an end.
    assert told.details.finish_reason in ("length", "eos_token")
    assert told.details.generated_tokens == 8 or told.details.finish_reason == "eos_token"
    assert len(told.details.prefill) == 5
    assert len(told.details.tokens) == told.details.generated_tokens
    assert told.details.best_of_sequences is not None
    assert len(told.details.best_of_sequences) == 1


def test_a_stream_of_details(client: Any) -> None:
    events = list(client.text_generation(STORY, details=True, stream=True, max_new_tokens=6))
    assert all(isinstance(event, TextGenerationStreamOutput) for event in events)
    last = events[-1]
    assert last.details is not None
    assert last.details.generated_tokens == len(events) == last.index == 6
    assert last.details.finish_reason == "length"
    assert last.generated_text == STORY + "".join(event.token.text for event in events)


def test_a_grammar(client: Any) -> None:
    grammar = TextGenerationInputGrammarType(type="regex", value="(19|20)[0-9]{2}")
    year = client.text_generation(
        "Born in ", grammar=grammar, max_new_tokens=9, return_full_text=False
    )
    assert re.fullmatch("(19|20)[0-9]{2}", year)


def test_a_chat(client: Any) -> None:
    settings = {"model": MODEL, "max_tokens": 8, "temperature": 0.0}
    whole = client.chat_completion([*map(dict, user("Name a colour."))], **settings)
    chunks = client.chat_completion([*map(dict, user("Name a colour."))], stream=True, **settings)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    del settings["model"]
    unnamed = client.chat_completion([*map(dict, user("Name a colour."))], **settings)
    assert unnamed.model == MODEL


def test_a_chat_of_a_given_shape(client: Any) -> None:
    """The client sends a schema in its own way."""
    schema = {"type": "object", **AGED}
    told = client.chat_completion(
        [*map(dict, user("Invent a person."))],
        model=MODEL,
        max_tokens=30,
        response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": schema}},
    )
    answer = json.loads(told.choices[0].message.content or "")
    assert answer.keys() == {"age"}


def test_its_errors(client: Any) -> None:
    with pytest.raises(ValidationError, match=r"parameters\.temperature"):
        client.text_generation(STORY, temperature=-1)
    with pytest.raises(ValidationError, match="watermark"):
        client.text_generation(STORY, watermark=True, stream=True)
    with pytest.raises(ValidationError, match="Given: "):
        client.text_generation(STORY, max_new_tokens=N_CTX)
