"""/v1/embeddings against the document."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types import CreateEmbeddingResponse

from tests.contract.known import read
from tests.contract.published import Published
from tests.e2e.asking import MODEL

BODIES: Mapping[str, Mapping[str, Any]] = {
    "a text": {"input": "Hello"},
    "texts": {"input": ["Hello", "there"]},
    "token ids": {"input": [28, 29, 30]},
    "lists of token ids": {"input": [[28, 29], [30]]},
    "floats": {"input": "Hello", "encoding_format": "float"},
    "base64": {"input": ["Hello", "there"], "encoding_format": "base64"},
    "shorter": {"input": "Hello", "dimensions": 16},
}


@pytest.mark.parametrize("fields", BODIES.values(), ids=BODIES)
def test_embeddings(http: httpx.Client, document: Published, fields: Mapping[str, Any]) -> None:
    response = http.post("/v1/embeddings", json={"model": MODEL, **fields})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    document.check("CreateEmbeddingResponse", body)
    given: Any = fields["input"]
    n_inputs = 1 if isinstance(given, str) or isinstance(given[0], int) else len(given)
    assert [item["index"] for item in body["data"]] == [*range(n_inputs)]
    in_base64 = fields.get("encoding_format") == "base64"
    assert all(isinstance(item["embedding"], str) == in_base64 for item in body["data"])
    if not in_base64:
        read(CreateEmbeddingResponse, body)


def test_the_sdk_decodes_what_it_asks_for(sdk: OpenAI) -> None:
    decoded = sdk.embeddings.create(model=MODEL, input=["Hello", "there"])
    plain = sdk.embeddings.create(model=MODEL, input=["Hello", "there"], encoding_format="float")
    for one, other in zip(decoded.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(x * x for x in one.embedding) == pytest.approx(1, abs=1e-3)
    assert decoded.usage == plain.usage
