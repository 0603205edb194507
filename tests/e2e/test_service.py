"""What is around the answers: models, health, metrics, and paths with and without /v1."""

import uuid

import httpx
import pytest
from openai import OpenAI
from openai.pagination import SyncPage
from openai.types import Model

from tests.e2e.asking import (
    LATER,
    MODEL,
    OTHER,
    Scrape,
    chat_body,
    forced,
    scrape,
    streamed_chat,
    user,
)
from tests.e2e.conftest import BROKEN
from tests.e2e.process import Corral, eventually
from tests.e2e.wire import whole_chat, whole_completion


def test_models(http: httpx.Client) -> None:
    body = http.get("/v1/models").json()
    assert body.keys() == {"object", "data"}
    assert [model["id"] for model in body["data"]] == [MODEL, OTHER, LATER, *BROKEN]
    assert all(model.keys() == {"id", "object", "created", "owned_by"} for model in body["data"])
    assert SyncPage[Model].model_validate(body).object == "list"
    for model in body["data"]:
        assert http.get(f"/v1/models/{model['id']}").json() == model
    # Stable: it is the age of the file.
    assert http.get("/v1/models").json() == body


def test_a_model_is_loaded_when_it_is_asked_for(corral: Corral, http: httpx.Client) -> None:
    before = {worker.pid for worker in corral.workers()}
    body = {"model": LATER, "prompt": "Hi", "max_tokens": 1}
    answer = whole_completion(http.post("/v1/completions", json=body).text)
    assert answer.model == LATER
    after = {worker.pid for worker in corral.workers()}
    assert len(after - before) == 1
    assert before <= after
    whole_completion(http.post("/v1/completions", json=body).text)
    assert {worker.pid for worker in corral.workers()} == after


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_paths(http: httpx.Client, prefix: str) -> None:
    fields = {"max_tokens": 1}
    chat = http.post(f"{prefix}/chat/completions", json=chat_body(user("Hi"), fields))
    whole_chat(chat.text)
    body = {"model": MODEL, "prompt": "Hi", **fields}
    whole_completion(http.post(f"{prefix}/completions", json=body).text)
    assert http.get(f"{prefix}/models").json()["object"] == "list"
    assert http.get(f"{prefix}/models/{OTHER}").json()["id"] == OTHER
    assert http.get(f"{prefix}/healthz").json() == {"status": "ok"}
    assert http.get(f"{prefix}/readyz").json() == {"status": "ready"}
    assert "corral_requests_total" in http.get(f"{prefix}/metrics").text


COUNTERS = ("corral_prompt_tokens", "corral_cached_tokens", "corral_completion_tokens")


def counts(scraped: Scrape, endpoint: str) -> dict[str, float]:
    """What one answered request of MODEL changes."""
    model = {"model": MODEL}
    answered = {**model, "endpoint": endpoint, "status": "200"}
    return {
        "requests": scraped.get("corral_requests_total", answered),
        **{name: scraped.get(f"{name}_total", model) for name in COUNTERS},
        "first": scraped.get("corral_time_to_first_token_seconds_count", model),
        "inter": scraped.get("corral_inter_token_seconds_count", model),
    }


def test_metrics_count_what_was_answered(http: httpx.Client) -> None:
    endpoint = "/chat/completions"
    question = user(f"{uuid.uuid4()} says hello.")
    for n_cached_at_least in (0, 1):
        before = counts(scrape(http), endpoint)
        usage = streamed_chat(http, question, forced(1234, 6)).counted
        details = usage.prompt_tokens_details
        assert details is not None
        assert details.cached_tokens is not None
        assert details.cached_tokens >= n_cached_at_least
        wanted = {
            "requests": 1,
            "corral_prompt_tokens": usage.prompt_tokens,
            "corral_cached_tokens": details.cached_tokens,
            "corral_completion_tokens": 6,
            "first": 1,
        }

        def moved() -> dict[str, float]:
            after = counts(scrape(http), endpoint)
            return {name: after[name] - before[name] for name in after}  # noqa: B023

        # The count follows the last byte, so it may come a moment later.
        eventually(lambda: wanted.items() <= moved().items(), f"{moved()} is {wanted}")  # noqa: B023
        assert 1 <= moved()["inter"] <= 5


def test_an_answer_that_repeats_itself_is_mostly_guessed(http: httpx.Client) -> None:
    def guessed(name: str) -> float:
        return scrape(http).get(f"corral_{name}_tokens_total", {"model": MODEL})

    before = {name: guessed(name) for name in ("drafted", "accepted", "completion")}
    body = {"model": MODEL, "prompt": f"{uuid.uuid4()}", **forced(1234, 80)}
    answer = whole_completion(http.post("/v1/completions", json=body).text)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 80
    eventually(lambda: guessed("completion") == before["completion"] + 80, "it is counted")
    # The first ones are not, nor the token after each draft, and others may run beside it.
    assert 40 <= guessed("accepted") - before["accepted"] < 80
    assert guessed("drafted") - before["drafted"] < 80


def test_metrics_count_refusals(http: httpx.Client) -> None:
    def refused(model: str) -> float:
        labels = {"model": model, "endpoint": "/completions", "status": "400"}
        return scrape(http).get("corral_requests_total", labels)

    before = refused(MODEL)
    body = {"model": MODEL, "prompt": "Hi", "temperature": -1}
    assert http.post("/v1/completions", json=body).status_code == 400
    eventually(lambda: refused(MODEL) == before + 1, "a refused request is counted")
    # A name that a client made up must not become a label.
    http.post("/v1/completions", json={**body, "model": "made-up"})
    assert "made-up" not in http.get("/metrics").text


def test_metrics_show_what_runs(sdk: OpenAI, http: httpx.Client) -> None:
    stream = sdk.chat.completions.create(
        model=MODEL, messages=[*user("Hi")], stream=True, extra_body={**forced(1234, 500)}
    )
    next(stream)
    assert scrape(http).load(MODEL) == (1, 0)
    stream.close()
    eventually(lambda: scrape(http).load(MODEL) == (0, 0), "the slot is free again")
