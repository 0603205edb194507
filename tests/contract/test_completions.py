"""/v1/completions against the document: whole answers and every chunk."""

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import httpx
import pytest
from openai.types import Completion

from tests.contract.known import read
from tests.contract.published import Published
from tests.e2e.asking import MODEL
from tests.e2e.wire import events

PATH = "/v1/completions"

BODIES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "token ids": {"prompt": [28, 29, 30]},
    "many": {"prompt": ["Red,", "One, two,"], "n": 2, "temperature": 1, "seed": 3},
    "lists of token ids": {"prompt": [[28, 29], [30]]},
    "scored": {"logprobs": 3},
    "scored without rivals": {"logprobs": 0},
    "echoed": {"echo": True},
    "echoed and scored": {"echo": True, "logprobs": 1},
    "the prompt alone": {"echo": True, "logprobs": 1, "max_tokens": 0},
    "bytes": {"logprobs": 2, "logit_bias": {"158": 90}},
}
ONLY_WHOLE: Mapping[str, Mapping[str, Any]] = {
    "the best of three": {"best_of": 3, "n": 2, "temperature": 1, "logprobs": 1},
}


def body_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The request of a case."""
    return {"model": MODEL, "prompt": "Red, green,", "max_tokens": 6, "temperature": 0, **fields}


@pytest.mark.parametrize("fields", [*BODIES.values(), *ONLY_WHOLE.values()], ids=str)
def test_whole(http: httpx.Client, document: Published, fields: Mapping[str, Any]) -> None:
    response = http.post(PATH, json=body_of(fields))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    document.check("CreateCompletionResponse", response.json())
    answer = response.json()
    read(Completion, _without_nulls(answer))
    for choice in answer["choices"]:
        scores = choice["logprobs"]
        assert (scores is None) == ("logprobs" not in fields)
        if scores is not None:
            assert len({len(scores[key]) for key in scores}) == 1, scores
            assert (scores["token_logprobs"][0] is None) == fields.get("echo", False)


@pytest.mark.parametrize("usage", [False, True], ids=["", "usage"])
@pytest.mark.parametrize("fields", BODIES.values(), ids=str)
def test_stream(
    http: httpx.Client, document: Published, fields: Mapping[str, Any], usage: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if usage else {}
    response = http.post(PATH, json=body_of({**fields, "stream": True, **options}))
    assert response.status_code == 200, response.text
    *chunks, done = events(response.content)
    assert done == "[DONE]"
    for chunk in map(json.loads, chunks):
        document.check("CreateCompletionResponse", chunk)
        assert ("usage" in chunk) == usage
    assert (json.loads(chunks[-1])["choices"] == []) == usage


def _without_nulls(answer: dict[str, Any]) -> dict[str, Any]:
    """The SDK's types do not know that an echoed prompt's first token has no score."""
    copy = deepcopy(answer)
    for choice in copy["choices"]:
        if choice["logprobs"] is not None:
            for key in ("token_logprobs", "top_logprobs"):
                choice["logprobs"][key] = [v for v in choice["logprobs"][key] if v is not None]
    return copy
