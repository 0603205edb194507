"""TGI's API with the real model: the official client, raw requests, and what both must agree on."""

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.asking import FRESH, LATER, MODEL, complete, user
from tests.e2e.conftest import N_CTX

STORY = "Once upon a time, in a village by the sea,"
EOS = "<|im_end|>"

CARD = {
    "best_of": 1,
    "do_sample": True,
    "max_new_tokens": 100,
    "repetition_penalty": 1.15,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.9,
}
"""What the model cards of the time send."""

AGED = {
    "properties": {"age": {"type": "integer", "minimum": 10, "maximum": 99}},
    "required": ["age"],
    "additionalProperties": False,
}
"""A schema that does not say that it is of objects: in TGI, properties say it."""

Json = dict[str, Any]


def ask(http: httpx.Client, path: str, inputs: str, **parameters: object) -> Any:
    response = http.post(path, json={"inputs": inputs, "parameters": parameters})
    assert response.status_code == 200, response.text
    return response.json()


def continued(http: httpx.Client, inputs: str, **parameters: object) -> Json:
    """The answer with its details."""
    answer = ask(http, "/generate", inputs, details=True, **parameters)
    assert answer.keys() == {"generated_text", "details"}
    details = answer["details"]
    assert details["generated_tokens"] == len(details["tokens"])
    return answer


def streamed(http: httpx.Client, inputs: str, **parameters: object) -> list[Json]:
    """The events, checked as to what all streams have in common."""
    body = {"inputs": inputs, "parameters": parameters}
    response = http.post("/generate_stream", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.text.endswith("\n\n")
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    events = [json.loads(block.removeprefix("data:")) for block in blocks]
    assert all(block.startswith("data:{") for block in blocks)
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert all(event["generated_text"] is event["details"] is None for event in events[:-1])
    assert isinstance(events[-1]["generated_text"], str)
    return events


def spelled(tokens: list[Json]) -> str:
    return "".join(token["text"] for token in tokens if not token["special"])


def test_what_the_cards_send(http: httpx.Client) -> None:
    [answer] = ask(http, "/", STORY, **CARD)
    assert answer.keys() == {"generated_text"}
    assert answer["generated_text"].startswith(STORY)
    assert len(answer["generated_text"]) > len(STORY) + 100


def test_greedy_is_what_completions_say(http: httpx.Client, sdk: OpenAI) -> None:
    expected = complete(sdk, STORY, {**FRESH, "max_tokens": 24}).choices[0].text
    assert ask(http, "/generate", STORY, max_new_tokens=24)["generated_text"] == expected
    # A temperature of 1 alone asks for no sampling.
    told = continued(http, STORY, max_new_tokens=24, temperature=1.0)
    assert told["generated_text"] == expected
    assert told["details"]["seed"] is None


def test_a_hundred_tokens_unless_it_says_otherwise(http: httpx.Client) -> None:
    told = continued(http, STORY, logit_bias={"2": False})
    assert told["details"]["generated_tokens"] == 100
    assert told["details"]["finish_reason"] == "length"


def test_without_parameters_it_is_drawn(http: httpx.Client) -> None:
    drawn = [http.post("/generate", json={"inputs": "I"}).json()["generated_text"] for _ in "12"]
    assert drawn[0] != drawn[1]


def test_a_seed_that_is_told_gives_the_same_again(http: httpx.Client) -> None:
    settings = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 16}
    first = continued(http, STORY, **settings)
    seed = first["details"]["seed"]
    again = continued(http, STORY, **settings, seed=seed)
    assert again["generated_text"] == first["generated_text"]
    assert continued(http, STORY, **settings)["details"]["seed"] != seed
    huge = continued(http, STORY, **settings, seed=2**64 - 1)
    assert huge["details"]["seed"] == 2**64 - 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_new_tokens": 20},
        {"max_new_tokens": 40, "stop": ["a", "the"]},
        {"max_new_tokens": 40, "stop": [" sea", "zz", "lit"]},
        {"max_new_tokens": 40, "do_sample": True, "seed": 3, "temperature": 2.5, "min_p": 0},
        {"max_new_tokens": 12, "grammar": {"type": "regex", "value": "(🙂é漢){2}"}},
        {"max_new_tokens": 12, "stop": ["é"], "grammar": {"type": "regex", "value": "(🙂é漢){2}"}},
        {"max_new_tokens": 3, "grammar": {"type": "regex", "value": "🙂🙂🙂"}},
        {"max_new_tokens": 20, "top_n_tokens": 3},
    ],
)
def test_streams_and_whole_answers_say_the_same(
    http: httpx.Client, parameters: Mapping[str, object]
) -> None:
    whole = continued(http, STORY, **parameters)
    events = streamed(http, STORY, details=True, **parameters)
    details = whole["details"]
    assert [event["token"]["id"] for event in events] == [t["id"] for t in details["tokens"]]
    assert [event["token"]["text"] for event in events] == [t["text"] for t in details["tokens"]]
    assert [event.get("top_tokens", []) for event in events] == (
        details.get("top_tokens") or [[]] * len(events)
    )
    last = events[-1]
    assert last["generated_text"] == whole["generated_text"] == spelled(details["tokens"])
    told = last["details"]
    assert told.pop("input_length") == len(ask(http, "/tokenize", STORY))
    assert told == {name: details[name] for name in ("finish_reason", "generated_tokens", "seed")}
    assert ("top_tokens" in details) == ("top_tokens" in last) == ("top_n_tokens" in parameters)


def test_a_stream_tells_details_to_those_who_ask(http: httpx.Client) -> None:
    assert streamed(http, STORY, max_new_tokens=2)[-1]["details"] is None
    full = streamed(http, STORY, max_new_tokens=2, return_full_text=True)
    assert full[-1]["generated_text"].startswith(STORY)
    assert not full[0]["token"]["text"].startswith(STORY)


def test_how_answers_end(http: httpx.Client) -> None:
    told = continued(http, f"<|im_start|>user\nSay hi.{EOS}\n<|im_start|>assistant\n")
    assert told["details"]["finish_reason"] == "eos_token"
    assert told["details"]["tokens"][-1]["text"] == EOS
    assert told["details"]["tokens"][-1]["special"]
    assert EOS not in told["generated_text"]
    told = continued(http, STORY, max_new_tokens=5)
    assert told["details"]["finish_reason"] == "length"
    assert told["details"]["generated_tokens"] == 5
    text = ask(http, "/generate", STORY, max_new_tokens=40)["generated_text"]
    # From inside a token to inside a later one.
    stop = text[9:14]
    told = continued(http, STORY, max_new_tokens=40, stop=["never seen", stop])
    assert told["details"]["finish_reason"] == "stop_sequence"
    assert told["generated_text"] == text[: text.index(stop) + len(stop)]
    assert spelled(told["details"]["tokens"]) == told["generated_text"]


def test_the_prompt_is_told_with_its_scores(http: httpx.Client) -> None:
    body = {**FRESH, "max_tokens": 1, "echo": True, "logprobs": 0, "model": MODEL, "prompt": STORY}
    expected = http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    told = ask(http, "/generate", STORY, decoder_input_details=True, max_new_tokens=1)["details"]
    scores = [token["logprob"] for token in told["prefill"]]
    assert scores[0] is None
    assert (
        [*scores[1:], told["tokens"][0]["logprob"]]
        == pytest.approx(  # pyright: ignore[reportUnknownMemberType]
            expected["token_logprobs"][1:], abs=1e-4
        )
    )
    assert "".join(token["text"] for token in told["prefill"]) == STORY


def test_the_best_tokens(http: httpx.Client) -> None:
    details = continued(http, STORY, max_new_tokens=6, top_n_tokens=4)["details"]
    for token, top in zip(details["tokens"], details["top_tokens"], strict=True):
        assert len(top) == 4
        assert top == sorted(top, key=lambda t: -t["logprob"])
        assert top[0] == token


def test_the_best_of_several(http: httpx.Client) -> None:
    told = continued(http, STORY, best_of=3, do_sample=True, max_new_tokens=12, top_k=40)
    best, others = told["details"], told["details"]["best_of_sequences"]
    assert len(others) == 2

    def mean(details: Json) -> float:
        return sum(t["logprob"] for t in details["tokens"]) / len(details["tokens"])

    assert all(mean(best) >= mean(other) for other in others)
    assert len({best["seed"], *(other["seed"] for other in others)}) == 3
    for other in others:
        assert spelled(other["tokens"]) == other["generated_text"]
        assert other["seed"] is not None
    plain = ask(http, "/generate", STORY, best_of=2, do_sample=True, max_new_tokens=4)
    assert plain.keys() == {"generated_text"}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json", AGED),
        ("json", json.dumps(AGED)),
        ("json_object", AGED),
        ("json_schema", {"name": "person", "schema": AGED}),
        ("regex", r"\{\"age\": [0-9]{2}\}"),
    ],
)
def test_grammars_are_enforced(http: httpx.Client, kind: str, value: object) -> None:
    grammar = {"type": kind, "value": value}
    told = continued(http, "A person: ", max_new_tokens=30, grammar=grammar)
    assert told["details"]["finish_reason"] == "eos_token"
    assert json.loads(told["generated_text"]).keys() == {"age"}


def test_truncation_keeps_the_end(http: httpx.Client) -> None:
    tokens = ask(http, "/tokenize", STORY)
    told = ask(http, "/generate", STORY, truncate=4, decoder_input_details=True, max_new_tokens=4)
    assert [token["id"] for token in told["details"]["prefill"]] == [t["id"] for t in tokens[-4:]]
    cut = STORY[tokens[-4]["start"] :]
    assert ask(http, "/generate", cut, max_new_tokens=4)["generated_text"] == told["generated_text"]
    # What does not fit is made to fit.
    long = STORY * 300
    details = continued(http, long, truncate=100, max_new_tokens=2)["details"]
    assert details["generated_tokens"] == 2


def test_every_other_parameter_changes_the_answer(http: httpx.Client) -> None:
    prompt = "one two one two one two one two one"
    plain = ask(http, "/generate", prompt, max_new_tokens=12)["generated_text"]
    for parameter in ({"repetition_penalty": 2.0}, {"frequency_penalty": 2.0}):
        other = ask(http, "/generate", prompt, max_new_tokens=12, **parameter)["generated_text"]
        assert other != plain, parameter
    drawn = {"max_new_tokens": 8, "temperature": 3.0, "seed": 1, "min_p": 0}
    wild = ask(http, "/generate", prompt, **drawn)["generated_text"]
    for parameter in ({"top_k": 1}, {"top_p": 0.01}, {"typical_p": 0.05}):
        other = ask(http, "/generate", prompt, **drawn, **parameter)["generated_text"]
        assert other != wild, parameter


def test_the_headers(http: httpx.Client) -> None:
    body = {"inputs": "Ünï", "parameters": {"max_new_tokens": 6}}
    headers = http.post("/generate", json=body).headers
    assert headers["x-compute-type"] == "cpu"
    assert headers["x-compute-characters"] == "3"
    assert headers["x-generated-tokens"] == "6"
    assert int(headers["x-prompt-tokens"]) == len(ask(http, "/tokenize", "Ünï"))
    total, *parts = (
        int(headers[f"x-{name}-time"]) for name in ("total", "validation", "queue", "inference")
    )
    assert total - 3 <= sum(parts) <= total
    assert float(headers["x-compute-time"]) * 1000 == pytest.approx(total, abs=1.0)  # pyright: ignore[reportUnknownMemberType]
    assert 0 < int(headers["x-time-per-token"]) <= total
    headers = http.post("/generate_stream", json=body).headers
    assert headers["x-compute-type"] == "cpu"
    assert headers["x-compute-characters"] == "3"


def test_who_waits_is_told_how_long(http: httpx.Client) -> None:
    # One slot for two candidates.
    parameters = {"best_of": 2, "do_sample": True, "max_new_tokens": 20}
    body = {"model": LATER, "inputs": STORY, "parameters": parameters}
    headers = http.post("/generate", json=body).headers
    assert 5 <= int(headers["x-queue-time"]) < int(headers["x-total-time"])


def test_tokens_and_where_they_lie(http: httpx.Client) -> None:
    text = f"naïve 東京 🙂{EOS}!"
    tokens: list[Json] = ask(http, "/tokenize", text)
    raw = text.encode()
    at = 0
    for token in tokens:
        assert token.keys() == {"id", "text", "start", "stop"}
        assert token["start"] == at
        at = token["stop"]
        assert token["text"] == raw[token["start"] : at].decode(errors="replace")
    assert at == len(raw)
    assert EOS in [token["text"] for token in tokens]
    ids = http.post("/tokenize", json={"prompt": text}).json()["tokens"]
    assert [token["id"] for token in tokens] == ids


def test_the_tokens_of_a_conversation(http: httpx.Client) -> None:
    body = {"messages": user("Hi"), "model": ""}
    told = http.post("/chat_tokenize", json=body).json()
    prompt = http.post("/apply-template", json=body).json()["prompt"]
    assert told["templated_text"] == prompt
    assert "".join(token["text"] for token in told["tokenize_response"]) == prompt


def test_what_is_served(http: httpx.Client) -> None:
    told = http.get("/info").json()
    assert told["model_id"] == MODEL
    assert told["max_total_tokens"] == N_CTX == told["max_input_tokens"] + 1
    assert http.get("/info", params={"model": LATER}).json()["max_total_tokens"] == 256
    assert http.get("/health").status_code == 200
    assert http.get("/v1/health").json() == {"status": "ok"}


def test_a_model_may_be_named(http: httpx.Client) -> None:
    body = {"inputs": "x " * 240, "parameters": {"max_new_tokens": 20}}
    assert http.post("/generate", json=body).status_code == 200
    refused = http.post("/generate", json={**body, "model": LATER})
    assert refused.status_code == 422
    assert "must be <= 256. Given: " in refused.json()["error"]
    unknown = http.post("/generate", json={**body, "model": "nobody"})
    assert (unknown.status_code, unknown.json()["error_type"]) == (404, "validation")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_and_an_answer_that_do_not_fit(http: httpx.Client, stream: bool) -> None:
    body = {"inputs": "x" * 99, "parameters": {"max_new_tokens": N_CTX}, "stream": stream}
    refused = http.post("/", json=body)
    assert refused.status_code == 422
    assert re.search(rf"must be <= {N_CTX}\. Given: \d+ `inputs`", refused.json()["error"])


def test_what_fits_is_given_where_nothing_was_asked_for(http: httpx.Client) -> None:
    text = "x " * 400
    tokens = ask(http, "/tokenize", text)
    body = {"model": LATER, "inputs": text[: tokens[235]["stop"]]}
    told = http.post("/generate", json={**body, "parameters": {"details": True}}).json()
    assert told["details"]["generated_tokens"] <= 20
    refused = http.post("/generate", json={**body, "inputs": text})
    assert refused.status_code == 422
