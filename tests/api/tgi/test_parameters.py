"""What TGI's parameters ask the engine for."""

import json
from typing import Any

import pytest

from server.ipc import Accepted, Event, Finished, GenerateRequest, Grammar, TokenScore
from server.sampling import SamplingParams
from tests.api.scripted import house

SETTINGS = SamplingParams(temperature=0.6, top_k=7, repeat_last_n=32)


async def asked(**body: Any) -> GenerateRequest:
    """What reaches the engine."""

    def script(_: int, __: GenerateRequest) -> list[Event]:
        return [Accepted(0, 1), Finished(0, "x", 1, "stop", 1, 0, 1, (TokenScore(5, b"x", -0.1),))]

    async with house(script, sampling=SETTINGS) as h:
        response = await h.post("/generate", **{"inputs": "Hi", **body})
        assert response.status_code == 200, response.text
        assert "x-corral-ignored" not in response.headers
        (request,) = h.worker.requests
    return request


@pytest.mark.parametrize(
    ("parameters", "temperature"),
    [
        ({}, 0),
        ({"do_sample": False}, 0),
        ({"temperature": 1.0}, 0),
        ({"repetition_penalty": 1.2, "max_new_tokens": 5}, 0),
        ({"do_sample": True}, 0.6),
        ({"do_sample": True, "temperature": 1.0}, 1.0),
        ({"temperature": 0.3}, 0.3),
        ({"top_k": 3}, 0.6),
        ({"top_p": 0.3}, 0.6),
        ({"typical_p": 0.3}, 0.6),
        ({"temperature": None, "top_k": None}, 0),
    ],
)
async def test_when_it_draws(parameters: dict[str, object], temperature: float) -> None:
    request = await asked(parameters=parameters)
    assert request.sampling.temperature == temperature
    assert (request.sampling.seed is None) == (temperature == 0)


@pytest.mark.parametrize("body", [{}, {"parameters": None}])
async def test_without_parameters_it_draws(body: dict[str, object]) -> None:
    assert (await asked(**body)).sampling.temperature == 0.6


async def test_what_is_missing_is_the_models_own() -> None:
    sampling = (await asked(parameters={"top_p": 0.5, "seed": 4})).sampling
    assert sampling == SETTINGS.model_copy(update={"top_p": 0.5, "seed": 4})


@pytest.mark.parametrize(
    ("parameters", "last_n"),
    [
        ({"repetition_penalty": 1.2}, -1),
        ({"frequency_penalty": 0.5}, -1),
        ({"repetition_penalty": 1.2, "repeat_last_n": 9}, 9),
        ({"frequency_penalty": 0.5, "penalty_last_n": 9}, 9),
        ({"do_sample": True}, 32),
    ],
)
async def test_penalties_look_at_everything(parameters: dict[str, object], last_n: int) -> None:
    sampling = (await asked(parameters=parameters)).sampling
    assert sampling.repeat_last_n == last_n
    assert sampling.repeat_penalty == parameters.get("repetition_penalty", 1.0)
    assert sampling.frequency_penalty == parameters.get("frequency_penalty", 0.0)


async def test_the_rest_of_a_request() -> None:
    plain = await asked(parameters={})
    assert plain.max_tokens == 100
    assert (plain.logprobs, plain.echo, plain.stop) == (None, False, ())
    parameters = {"stop": ["a", "b"], "decoder_input_details": True, "top_n_tokens": 3}
    told = await asked(parameters={**parameters, "max_new_tokens": 7})
    assert told.max_tokens == 7
    assert (told.logprobs, told.echo, told.stop, told.keep_stop) == (3, True, ("a", "b"), True)


@pytest.mark.parametrize(
    ("kind", "value", "syntax", "expected"),
    [
        ("json", {"type": "array"}, "json_schema", {"type": "array"}),
        ("json", '{"type": "array"}', "json_schema", {"type": "array"}),
        ("json_object", {"properties": {}}, "json_schema", {"type": "object", "properties": {}}),
        ("json_schema", {"schema": {"type": "null"}, "name": "n"}, "json_schema", {"type": "null"}),
        ("regex", "[0-9]+", "regex", "[0-9]+"),
    ],
)
async def test_grammars(kind: str, value: object, syntax: str, expected: object) -> None:
    grammar = (await asked(parameters={"grammar": {"type": kind, "value": value}})).grammar
    assert isinstance(grammar, Grammar)
    assert grammar.syntax == syntax
    assert (grammar.source if syntax == "regex" else json.loads(grammar.source)) == expected


async def test_seeds_of_candidates_are_their_own() -> None:
    async with house() as h:
        parameters = {"best_of": 3, "do_sample": True}
        await h.post("/generate", inputs="Hi", parameters=parameters)
        requests = h.worker.requests
    assert len({request.sampling.seed for request in requests}) == len(requests) == 3
    assert all(request.logprobs == 0 for request in requests)


async def test_parameters_in_the_wrong_place() -> None:
    async with house() as h:
        response = await h.post("/generate", inputs="Hi", top_p=0.5)
    assert response.status_code == 422
    assert "top_p belongs into parameters" in response.json()["error"]
