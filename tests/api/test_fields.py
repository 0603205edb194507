"""Sampling parameters and fields that are not served."""

import json
import logging
from typing import Any

import pytest

from server.api.fields import merge_sampling, report_unserved, sort_out
from server.errors import InvalidRequest
from server.sampling import ALIASES, SamplingParams
from tests.api.scripted import error_of, house

DEFAULTS = SamplingParams(temperature=0.7, top_k=5)


def test_every_sampling_parameter_is_a_field() -> None:
    names = [*SamplingParams.model_fields, *ALIASES]
    extras = sort_out(dict.fromkeys(names, 1))
    assert list(extras.sampling) == names
    assert extras.unserved == ()


def test_given_values_go_over_the_models_defaults() -> None:
    merged = merge_sampling(DEFAULTS, {"top_k": 9, "repetition_penalty": 1.5})
    assert merged == SamplingParams(temperature=0.7, top_k=9, repeat_penalty=1.5)
    assert merge_sampling(DEFAULTS, {}) is DEFAULTS


def test_null_means_default() -> None:
    extras = sort_out({"temperature": None, "logprobs": None, "made_up": None})
    assert extras.unserved == ()
    assert merge_sampling(DEFAULTS, extras.sampling) == DEFAULTS


@pytest.mark.parametrize(
    ("given", "param", "message"),
    [
        ({"temperature": 400}, "temperature", "Input should be less than or equal to 100, got 400"),
        ({"repetition_penalty": 0}, "repetition_penalty", "Input should be greater than 0, got 0"),
        ({"top_k": "many"}, "top_k", 'got "many"'),
        ({"top_p": float("nan")}, "top_p", "Input should be a finite number"),
        ({"dry_sequence_breakers": ["a", 5]}, "dry_sequence_breakers.1", "got 5"),
    ],
)
def test_bad_values_name_the_clients_field(
    given: dict[str, object], param: str, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        merge_sampling(DEFAULTS, given)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    "bias", [5, [5], [[1, 2, 3]], {"x": 1}, {"1": "x"}, {"1": True}, [[1, float("inf")]], "12"]
)
def test_bad_biases(bias: object) -> None:
    with pytest.raises(InvalidRequest, match=r"^logit_bias"):
        merge_sampling(DEFAULTS, {"logit_bias": bias})


def test_biases_reach_the_engine() -> None:
    merged = merge_sampling(DEFAULTS, {"logit_bias": {"5": -1.5, "6": False}})
    assert merged.logit_bias == ((5, -1.5), (6, float("-inf")))
    # Defaults with a ban go through validation again.
    assert merge_sampling(merged, {"top_k": 1}).logit_bias == merged.logit_bias


def test_two_names_of_one_parameter_must_agree() -> None:
    agreed = {"repeat_penalty": 1.5, "repetition_penalty": 1.5}
    assert merge_sampling(DEFAULTS, agreed).repeat_penalty == 1.5
    with pytest.raises(InvalidRequest, match="another name of repeat_penalty"):
        merge_sampling(DEFAULTS, {"repeat_penalty": 1.5, "repetition_penalty": 1.6})


NOTHING: dict[str, Any] = {
    "logprobs": False,
    "top_logprobs": 0,
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "verbosity": "medium",
    "prediction": {"type": "content", "content": "x"},
    "service_tier": "auto",
    "store": False,
    "modalities": ["text"],
    "best_of": 1,
    "echo": False,
    "suffix": "",
    "user": "me",
    "metadata": {"a": "b"},
}
SOMETHING: dict[str, Any] = {
    "logprobs": 0,
    "top_logprobs": 3,
    "tools": [{"type": "function"}],
    "tool_choice": "required",
    "verbosity": "low",
    "web_search_options": {},
    "service_tier": "priority",
    "store": True,
    "best_of": 2,
    "chat_template": "{{ x }}",
    "made_up": "",
}


def test_what_asks_for_nothing_is_not_reported() -> None:
    assert sort_out(NOTHING).unserved == ()


def test_what_asks_for_something_is() -> None:
    assert sort_out(SOMETHING).unserved == tuple(SOMETHING)


class TestPolicies:
    async def test_warn(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        async with house() as h:
            for stream in (False, True):
                response = await h.chat(stream=stream, echo=True, made_up=1)
                assert response.status_code == 200
                assert response.headers["x-corral-ignored"] == "echo, made_up"
        (first, second) = caplog.records
        assert first.getMessage().endswith("ignored: echo, made_up")
        assert response.headers["x-request-id"] in second.getMessage()

    async def test_strict(self) -> None:
        async with house(unknown_fields="strict") as h:
            response = await h.chat(made_up=1, top_k=1, store=False)
            assert (await h.chat(top_k=1, store=False)).status_code == 200
            assert len(h.worker.requests) == 1
        assert response.status_code == 400
        error = error_of(response)
        assert (error["param"], error["code"]) == ("made_up", "unsupported_parameter")

    async def test_lax(self, caplog: pytest.LogCaptureFixture) -> None:
        async with house(unknown_fields="lax") as h:
            response = await h.chat(made_up=1)
        assert response.status_code == 200
        assert "x-corral-ignored" not in response.headers
        assert not caplog.records

    async def test_nothing_to_report(self) -> None:
        async with house() as h:
            assert "x-corral-ignored" not in (await h.chat()).headers

    async def test_names_cannot_smuggle_headers(self) -> None:
        body = json.dumps(
            {"model": "org/tiny", "prompt": "x", "a\r\nset-cookie: b\x00": 1, "é€": 1}
        )
        async with house() as h:
            response = await h.client.post("/v1/completions", content=body)
        assert response.headers["x-corral-ignored"] == r"a??set-cookie: b?, \xe9\u20ac"
        assert "set-cookie" not in response.headers

    def test_many_names_are_cut(self) -> None:
        headers = report_unserved(("x" * 5000,), "warn", "id")
        assert len(headers["x-corral-ignored"]) == 1024
