"""What TGI's API refuses, in TGI's words, with the real model behind it."""

from typing import Any

import httpx
import pytest

from tests.e2e.conftest import N_CTX, Lone

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("parameters", "named", "why"),
    [
        ({"best_of": 0}, "best_of", "greater than or equal to 1"),
        ({"best_of": 17, "do_sample": True}, "best_of", "less than or equal to 16"),
        ({"best_of": 2}, "best_of", "with sampling"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "seed", "best_of"),
        ({"temperature": 0}, "temperature", "greater than 0"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than 0"),
        ({"frequency_penalty": 2.5}, "frequency_penalty", "less than or equal to 2"),
        ({"top_k": 0}, "top_k", "greater than or equal to 1"),
        ({"top_p": 1.0}, "top_p", "less than 1"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"typical_p": 1}, "typical_p", "less than 1"),
        ({"max_new_tokens": 0}, "max_new_tokens", "greater than or equal to 1"),
        ({"stop": [str(i) for i in range(17)]}, "stop", "at most 16"),
        ({"stop": [""]}, "stop.0", "at least 1"),
        ({"truncate": 0}, "truncate", "greater than or equal to 1"),
        ({"truncate": N_CTX}, "truncate", f"less than {N_CTX}"),
        ({"watermark": True}, "watermark", "not watermarked"),
        ({"adapter_id": "mine"}, "adapter_id", "no adapters"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"top_n_tokens": 21}, "top_n_tokens", "less than or equal to 20"),
        ({"grammar": {"type": "bnf", "value": "x"}}, "grammar", "json, regex or json_schema"),
        ({"grammar": {"type": "regex", "value": "("}}, "grammar.value", ""),
        ({"grammar": {"type": "json", "value": "{"}}, "grammar.value", "not JSON"),
        ({"grammar": {"type": "json", "value": {"type": 7}}}, "grammar.value", "type must"),
        ({"grammar": {"type": "json_schema", "value": {}}}, "grammar.value.schema", "required"),
        ({"min_p": 2}, "", "min_p"),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_bad_parameters(
    http: httpx.Client, path: str, parameters: Json, named: str, why: str
) -> None:
    response = http.post(path, json={"inputs": "Hi", "parameters": parameters})
    assert response.status_code == 422, response.text
    body = response.json()
    assert body.keys() == {"error", "error_type"}
    assert body["error_type"] == "validation"
    told = body["error"]
    assert told.startswith("Input validation error: ")
    if named:
        assert f"parameters.{named}" in told
    assert why in told or (path == "/generate_stream" and "stream" in told)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "inputs: Field required"),
        ({"inputs": ""}, "inputs: "),
        ({"inputs": ["a", "b"]}, "inputs: "),
        ({"inputs": "Hi", "parameters": 3}, "parameters: "),
        ({"inputs": "Hi", "temperature": 0.5}, "temperature belongs into parameters"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream"])
def test_bad_bodies(http: httpx.Client, path: str, body: Json, why: str) -> None:
    response = http.post(path, json=body)
    assert response.status_code == 422
    assert why in response.json()["error"]
    assert response.json()["error_type"] == "validation"


@pytest.mark.parametrize(
    "parameters", [{"decoder_input_details": True}, {"best_of": 2, "top_k": 9}]
)
def test_what_streams_cannot_tell(http: httpx.Client, parameters: Json) -> None:
    body = {"inputs": "Hi", "parameters": {"max_new_tokens": 2, **parameters}, "stream": True}
    response = http.post("/", json=body)
    assert response.status_code == 422
    assert "stream" in response.json()["error"]
    assert http.post("/", json={**body, "stream": False}).status_code == 200


def test_what_is_not_json_and_what_is_too_much(http: httpx.Client, strict: Lone) -> None:
    response = http.post("/generate", content=b"{")
    assert (response.status_code, response.json()["error_type"]) == (422, "validation")
    response = strict.http.post("/generate", json={"inputs": "x" * 70_000})
    assert (response.status_code, response.json()["error_type"]) == (413, "validation")
    response = strict.http.post("/tokenize", json={"inputs": "x" * 70_000})
    assert response.status_code == 413


def test_fields_that_nobody_knows(http: httpx.Client, strict: Lone) -> None:
    body = {"inputs": "Hi", "parameters": {"max_new_tokens": 1, "penalty_alpha": 0.6}}
    assert http.post("/generate", json=body).headers["x-corral-ignored"] == "penalty_alpha"
    response = strict.http.post("/generate", json=body)
    assert response.status_code == 422
    assert "penalty_alpha" in response.json()["error"]


@pytest.mark.parametrize("body", [{"inputs": 7}, {"inputs": "Hi", "model": "nobody"}])
def test_errors_of_tokens_are_told_to_each_in_his_way(http: httpx.Client, body: Json) -> None:
    assert http.post("/tokenize", json=body).json().keys() == {"error", "error_type"}
    body["prompt"] = body.pop("inputs")
    assert http.post("/tokenize", json=body).json()["error"].keys() >= {"message", "type"}
