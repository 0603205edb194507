"""Reranking by a model with a head for it, and what the demo model says to that."""

import math
from collections.abc import Iterator

import httpx
import pytest

from tests import bert
from tests.e2e.asking import MODEL
from tests.e2e.process import N_THREADS, serving, write_config

RANKS = "tiny-reranker"
BY_TEMPLATE = "tiny-reranker-with-template"
TINY = bert.tiny(seed=5).with_pooling("rank")
QUERY = "what does the cat eat"
DOCUMENTS = ("fish", "the mat", "paris", "the dog sat on the cat")


@pytest.fixture(scope="module")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server of two rerankers, and a client for it."""
    folder = tmp_path_factory.mktemp("rank")
    TINY.write(folder / "rank.gguf")
    TINY.write(folder / "template.gguf", "is {document} what {query}[SEP]")
    engine = {"n_threads": N_THREADS}
    paths = {RANKS: "rank.gguf", BY_TEMPLATE: "template.gguf"}
    models = {id: {"path": path, "engine": engine} for id, path in paths.items()}
    with serving(write_config(folder, models)) as corral:
        url = corral.wait_until_it_listens()
        with httpx.Client(base_url=url, timeout=60) as client:
            yield client


def relevance(ids: list[int]) -> float:
    return 1 / (1 + math.exp(-TINY.score(ids)))


def body(**fields: object) -> dict[str, object]:
    return {"model": RANKS, "query": QUERY, "documents": DOCUMENTS, **fields}


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_scores_are_those_of_the_reference(ranking: httpx.Client, path: str) -> None:
    answer = ranking.post(path, json=body(return_documents=True)).json()
    pairs = [bert.enclosed(QUERY, document) for document in DOCUMENTS]
    expected = {index: relevance(pair) for index, pair in enumerate(pairs)}
    results = answer["results"]
    assert [r["index"] for r in results] == sorted(expected, key=lambda i: -expected[i])
    for result in results:
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], abs=2e-3)
        assert result["document"] == {"text": DOCUMENTS[result["index"]]}
    assert answer["usage"]["total_tokens"] == sum(map(len, pairs))


def test_the_models_own_template(ranking: httpx.Client) -> None:
    answer = ranking.post("/v1/rerank", json=body(model=BY_TEMPLATE, top_n=4)).json()
    for result in answer["results"]:
        document = DOCUMENTS[int(result["index"])]
        expected = relevance(bert.enclosed(f"is {document} what {QUERY}"))
        assert result["relevance_score"] == pytest.approx(expected, abs=2e-3)


def test_a_pair_that_is_too_long(ranking: httpx.Client) -> None:
    response = ranking.post("/v1/rerank", json=body(documents=["fish", "the " * 60]))
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "documents.1")
    assert "68 tokens, this model takes at most 64" in error["message"]


def test_the_demo_model_does_not_rank(http: httpx.Client) -> None:
    response = http.post("/v1/rerank", json=body(model=MODEL))
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("this model does not rank documents")
