"""POST /v1/rerank over a scripted worker: the body, the order, the shape."""

from typing import Any

import pytest

from server.errors import InvalidRequest
from server.ipc import Question, Rank, Ranked, Reply
from tests.api.scripted import MODEL, House, error_of, house

DOCUMENTS = ["a", {"text": "b", "title": "B"}, "c", "d"]
SCORES = (0.25, 0.9, 0.25, 0.5)


def rank(question: Question) -> Reply:
    assert isinstance(question, Rank)
    return Ranked(SCORES[: len(question.documents)], (5,) * len(question.documents))


async def post(h: House, at: str = "/v1/rerank", **body: Any) -> Any:
    h.worker.answer = rank
    return await h.post(at, **{"query": "q", "documents": DOCUMENTS, **body})


async def test_the_answer() -> None:
    async with house() as h:
        response = await post(h)
        metrics = (await h.client.get("/metrics")).text
    body = response.json()
    assert set(body) == {"id", "object", "model", "usage", "results"}
    assert (body["object"], body["model"]) == ("list", MODEL)
    assert body["usage"] == {"prompt_tokens": 20, "total_tokens": 20}
    # Equal scores keep the order of the request.
    assert body["results"] == [
        {"index": 1, "relevance_score": 0.9},
        {"index": 3, "relevance_score": 0.5},
        {"index": 0, "relevance_score": 0.25},
        {"index": 2, "relevance_score": 0.25},
    ]
    assert h.worker.asked == [Rank("q", ("a", "b", "c", "d"))]
    assert f'corral_prompt_tokens_total{{model="{MODEL}"}} 20.0' in metrics


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_paths(path: str) -> None:
    async with house() as h:
        assert (await post(h, path)).json()["results"][0]["index"] == 1


@pytest.mark.parametrize(("top_n", "n"), [(1, 1), (4, 4), (9, 4), (None, 4)])
async def test_the_best_ones(top_n: int | None, n: int) -> None:
    async with house() as h:
        results = (await post(h, top_n=top_n)).json()["results"]
    assert [result["index"] for result in results] == [1, 3, 0, 2][:n]


async def test_with_the_documents() -> None:
    async with house() as h:
        results = (await post(h, return_documents=True, top_n=2)).json()["results"]
    assert [result["document"] for result in results] == [{"text": "b"}, {"text": "d"}]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"query": ""}, "query", "at least 1 character"),
        ({"query": None}, "query", "Field required"),
        ({"query": 5}, "query", "valid string"),
        ({"documents": []}, "documents", "at least 1 item"),
        ({"documents": ["a"] * 2049}, "documents", "at most 2048 items"),
        ({"documents": ["a", 5]}, "documents.1", "Input should be"),
        ({"documents": [{"title": "x"}]}, "documents.0.text", "Field required"),
        ({"top_n": 0}, "top_n", "greater than or equal to 1"),
    ],
)
async def test_bad_bodies(body: dict[str, Any], param: str, message: str) -> None:
    async with house() as h:
        response = await post(h, **body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert message in error["message"]
    assert h.worker.asked == []


async def test_what_the_worker_refuses() -> None:
    def refuse(_: Question) -> Reply:
        raise InvalidRequest("this model does not rank documents", "model")

    async with house() as h:
        h.worker.answer = refuse
        response = await h.post("/v1/rerank", query="q", documents=["a"])
    assert response.status_code == 400
    assert error_of(response)["param"] == "model"


async def test_fields_that_change_nothing_are_reported() -> None:
    async with house() as h:
        response = await post(h, max_chunks_per_doc=3, rank_fields=["text"])
    assert response.headers["x-corral-ignored"] == "max_chunks_per_doc, rank_fields"
