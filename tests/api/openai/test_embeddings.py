"""POST /v1/embeddings over a scripted worker: the body, the vectors as they go out, the bounds."""

import base64
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse

from server.errors import ContextLengthExceeded
from server.ipc import Embed, Embedded, Question, Reply
from tests.api.scripted import MODEL, House, error_of, house

VECTORS = ((0.6, 0.0, -0.8, 0.0), (0.5, 0.5, 0.5, -0.5), (0.0, 0.0, 0.0, 1.0))


def told(*vectors: Sequence[float]) -> Callable[[Question], Reply]:
    """A worker that knows these vectors, each of a text of 3 tokens."""

    def answer(question: Question) -> Reply:
        assert isinstance(question, Embed)
        raw = tuple(struct.pack(f"<{len(vector)}f", *vector) for vector in vectors)
        return Embedded(raw[: len(question.inputs)], (3,) * len(question.inputs))

    return answer


async def post(h: House, **body: object) -> Any:
    h.worker.answer = told(*VECTORS)
    return await h.post("/v1/embeddings", **{"input": "Hi", **body})


async def test_the_answer() -> None:
    async with house() as h:
        response = await post(h, input=["Hi", "you"], user="me")
        metrics = (await h.client.get("/metrics")).text
    body = response.json()
    assert response.headers.get("x-corral-ignored") is None
    CreateEmbeddingResponse.model_validate(body, strict=True)
    assert body["object"] == "list" and body["model"] == MODEL
    assert body["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert [item["index"] for item in body["data"]] == [0, 1]
    assert {item["object"] for item in body["data"]} == {"embedding"}
    assert body["data"][0]["embedding"] == pytest.approx(VECTORS[0])
    assert h.worker.asked == [Embed(("Hi", "you"))]
    assert f'corral_prompt_tokens_total{{model="{MODEL}"}} 6.0' in metrics


async def test_base64() -> None:
    async with house() as h:
        (item,) = (await post(h, encoding_format="base64")).json()["data"]
    assert struct.unpack("<4f", base64.b64decode(item["embedding"])) == pytest.approx(VECTORS[0])


async def test_floats_are_exact() -> None:
    async with house() as h:
        (item,) = (await post(h)).json()["data"]
    assert struct.pack("<4f", *item["embedding"]) == struct.pack("<4f", *VECTORS[0])


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
@pytest.mark.parametrize("n", [1, 2, 4])
async def test_fewer_dimensions(n: int, encoding_format: str) -> None:
    async with house() as h:
        body = {"dimensions": n, "encoding_format": encoding_format}
        (item,) = (await post(h, **body)).json()["data"]
    vector = item["embedding"]
    if encoding_format == "base64":
        vector = struct.unpack(f"<{n}f", base64.b64decode(vector))
    assert len(vector) == n
    assert math.hypot(*vector) == pytest.approx(1)
    scale = math.hypot(*VECTORS[0][:n])
    assert vector == pytest.approx([x / scale for x in VECTORS[0][:n]])


async def test_a_vector_that_begins_with_zeros_stays_finite() -> None:
    async with house() as h:
        body = (await post(h, input=["a", "b", "c"], dimensions=2)).json()
    assert body["data"][2]["embedding"] == [0, 0]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("Hi", ("Hi",)),
        (["a", "b"], ("a", "b")),
        ([5, 6], ((5, 6),)),
        ([[5], [6, 7]], ((5,), (6, 7))),
    ],
)
async def test_forms_of_input(given: object, asked: object) -> None:
    async with house() as h:
        assert (await post(h, input=given)).status_code == 200
    assert h.worker.asked == [Embed(asked)]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"input": ""}, "input", "it is empty"),
        ({"input": ["a", ""]}, "input", "item 1 is empty"),
        ({"input": []}, "input", "not empty"),
        ({"input": [[1], []]}, "input", "item 1 must be token ids"),
        ({"input": ["a"] * 2049}, "input", "2,049 inputs, at most 2,048"),
        ({"input": None}, "input", "Field required"),
        ({"encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ({"dimensions": 0}, "dimensions", "greater than or equal to 1, got 0"),
        ({"dimensions": 5}, "dimensions", "dimensions: 5, the model's vectors have 4"),
        ({"dimensions": 1.5}, "dimensions", "integer"),
    ],
)
async def test_bad_bodies(body: dict[str, object], param: str, message: str) -> None:
    async with house() as h:
        response = await post(h, **body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert message in error["message"]
    assert h.worker.asked == []


async def test_as_many_inputs_as_allowed() -> None:
    async with house() as h:
        h.worker.answer = told(*[(0.25,) * 16] * 2048)
        response = await h.post("/v1/embeddings", input=["a"] * 2048)
    body = response.json()
    assert [item["index"] for item in body["data"]] == [*range(2048)]
    assert body["data"][2047]["embedding"] == [0.25] * 16


async def test_what_the_worker_refuses() -> None:
    def refuse(_: Question) -> Reply:
        raise ContextLengthExceeded("input.1: 20 tokens, at most 16", "input.1")

    async with house() as h:
        h.worker.answer = refuse
        response = await h.post("/v1/embeddings", input=["a", "b"])
    error = error_of(response)
    assert response.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input.1")


async def test_fields_that_change_nothing_are_reported() -> None:
    async with house() as h:
        response = await post(h, temperature=0.5, truncate=True, metadata={})
    assert response.headers["x-corral-ignored"] == "temperature, truncate"
    async with house(unknown_fields="strict") as h:
        response = await post(h, temperature=0.5)
    assert response.status_code == 400
    assert error_of(response)["param"] == "temperature"


async def test_an_unknown_model() -> None:
    async with house() as h:
        response = await post(h, model="none")
    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"
