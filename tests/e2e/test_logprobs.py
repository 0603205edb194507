"""Scores of the real model: of answers and of prompts, streamed and whole."""

import math
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob

from tests.e2e.asking import FRESH, GREEDY, MODEL, Body, Prompt, chat, chat_body, complete, user
from tests.e2e.wire import error_of, events, whole_completion

COUNT = "1, 2, 3, 4, 5, 6, 7,"
QUESTION = user("Say hello in French, then in Chinese.")


def scored(sdk: OpenAI, body: Body) -> Sequence[ChatCompletionTokenLogprob]:
    """The scores of the only choice of a chat answer."""
    (choice,) = chat(sdk, QUESTION, {"logprobs": True, **body}).choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    return choice.logprobs.content


def raw_completion(http: httpx.Client, prompt: Prompt, body: Body) -> dict[str, Any]:
    """The only choice of a completion."""
    response = http.post("/v1/completions", json={"model": MODEL, "prompt": prompt, **body})
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    return choice


def test_the_greedy_token_is_the_likeliest(sdk: OpenAI) -> None:
    tokens = scored(sdk, {**GREEDY, "max_tokens": 24, "top_logprobs": 20})
    assert len(tokens) >= 8
    for token in tokens:
        assert len(token.top_logprobs) == 20
        best = token.top_logprobs[0]
        assert (token.token, token.logprob, token.bytes) == (best.token, best.logprob, best.bytes)
        assert [top.logprob for top in token.top_logprobs] == sorted(
            (top.logprob for top in token.top_logprobs), reverse=True
        )
        assert math.fsum(math.exp(top.logprob) for top in token.top_logprobs) <= 1 + 1e-6


@pytest.mark.parametrize("body", [FRESH, {"temperature": 1.5, "seed": 1, "cache_prompt": False}])
def test_tokens_spell_the_answer(sdk: OpenAI, http: httpx.Client, body: Body) -> None:
    body = {**body, "max_tokens": 32, "logprobs": True, "top_logprobs": 2}
    (choice,) = chat(sdk, QUESTION, body).choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    spelled = b"".join(bytes(token.bytes or ()) for token in choice.logprobs.content)
    assert choice.message.content is not None
    assert spelled.decode(errors="replace").startswith(choice.message.content.rstrip("\ufffd"))
    # A stream tells the same, each chunk its own.
    raw = http.post("/v1/chat/completions", json=chat_body(QUESTION, {**body, "stream": True}))
    streamed: list[Any] = []
    for data in events(raw.content)[:-1]:
        (delta,) = httpx.Response(200, text=data).json()["choices"]
        told = delta["logprobs"]
        streamed += told["content"] if told else []
        if told and delta["delta"]:
            assert delta["delta"]["content"]
    assert [ChatCompletionTokenLogprob.model_validate(entry) for entry in streamed] == list(
        choice.logprobs.content
    )


def test_scores_are_of_the_model_and_not_of_the_sampler(sdk: OpenAI) -> None:
    plain = scored(sdk, {**FRESH, "max_tokens": 1, "top_logprobs": 5})[0].top_logprobs
    for sampling in ({"temperature": 2, "top_k": 1}, {"temperature": 0.3, "min_p": 0.5}):
        body = {**FRESH, **sampling, "max_tokens": 1, "top_logprobs": 5}
        assert scored(sdk, body)[0].top_logprobs == plain
    # What is pushed aside is told as what it is: unlikely.
    forced = scored(sdk, {**FRESH, "max_tokens": 1, "top_logprobs": 1, "logit_bias": {"1234": 90}})
    assert forced[0].logprob < forced[0].top_logprobs[0].logprob
    assert forced[0].top_logprobs == plain[:1]


def test_a_prompt_is_scored_as_it_was_generated(http: httpx.Client) -> None:
    asked = {**FRESH, "logprobs": 3, "max_tokens": 9, "ignore_eos": True}
    made = raw_completion(http, COUNT, asked)
    text = COUNT + made["text"]
    read = raw_completion(http, text, {**asked, "echo": True, "max_tokens": 0})
    assert read["text"] == text
    assert read["finish_reason"] == "length"
    told, again = made["logprobs"], read["logprobs"]
    n = len(told["tokens"])
    assert n == 9
    assert again["tokens"][-n:] == told["tokens"]
    assert again["token_logprobs"][-n:] == pytest.approx(told["token_logprobs"], abs=2e-2)
    for one, other in zip(again["top_logprobs"][-n:], told["top_logprobs"], strict=True):
        assert next(iter(one)) == next(iter(other))
    assert again["token_logprobs"][0] is again["top_logprobs"][0] is None
    assert all(value is not None and value <= 0 for value in again["token_logprobs"][1:])
    for token, offset in zip(again["tokens"], again["text_offset"], strict=True):
        assert text[offset:].startswith(token)
    assert [offset + len(COUNT) for offset in told["text_offset"]] == again["text_offset"][-n:]


def test_token_ids_are_scored(http: httpx.Client) -> None:
    ids = [504, 3575, 282, 4649, 314, 7042, 30]
    asked = {**FRESH, "logprobs": 1, "max_tokens": 1, "echo": True, "seed": 1}
    told = raw_completion(http, ids, asked)["logprobs"]
    assert {len(values) for values in told.values()} == {len(ids) + 1}
    alone = raw_completion(http, ids, {**asked, "echo": False})["logprobs"]
    assert alone["tokens"] == told["tokens"][-1:]
    assert alone["token_logprobs"] == pytest.approx(told["token_logprobs"][-1:], abs=2e-2)
    # With a text that is these ids the same.
    text = "".join(told["tokens"][: len(ids)])
    same = raw_completion(http, text, asked)["logprobs"]
    assert same["token_logprobs"][1:] == pytest.approx(told["token_logprobs"][1:], abs=2e-2)


def test_a_cached_prompt_is_scored_all_the_same(http: httpx.Client) -> None:
    asked = {**GREEDY, "logprobs": 1, "max_tokens": 0, "echo": True}
    prompt = "A prompt that nobody else has: " + COUNT
    first, again = (raw_completion(http, prompt, asked)["logprobs"] for _ in range(2))
    assert again["token_logprobs"][1:] == pytest.approx(first["token_logprobs"][1:], abs=2e-2)
    plain = raw_completion(http, prompt, {**asked, "logprobs": None})
    assert (plain["text"], plain["logprobs"]) == (prompt, None)


def test_the_token_that_ends_is_scored(http: httpx.Client) -> None:
    body = {**GREEDY, "max_tokens": 4, "logit_bias": {"2": 90}, "logprobs": 0}
    ended = raw_completion(http, COUNT, body)
    assert (ended["text"], ended["finish_reason"]) == ("", "stop")
    assert len(ended["logprobs"]["tokens"]) == 1


def test_stop_strings_take_their_tokens_with_them(http: httpx.Client) -> None:
    body = {**FRESH, "max_tokens": 20, "ignore_eos": True, "logprobs": 0}
    whole = raw_completion(http, COUNT, body)
    stop = whole["text"][8:14]
    cut = raw_completion(http, COUNT, {**body, "stop": stop})
    assert cut["text"] == whole["text"][: whole["text"].index(stop)]
    tokens = cut["logprobs"]["tokens"]
    assert tokens == whole["logprobs"]["tokens"][: len(tokens)]
    assert "".join(tokens[:-1]) in cut["text"]
    assert "".join(tokens).startswith(cut["text"])


def test_the_likeliest_of_many(http: httpx.Client) -> None:
    body = {"temperature": 1, "seed": 5, "max_tokens": 6, "logprobs": 0, "ignore_eos": True}
    prompt = "The meaning of life is"
    all_of_them = http.post(
        "/v1/completions", json={"model": MODEL, "prompt": prompt, "n": 4, **body}
    )
    means = {
        choice["text"]: math.fsum(choice["logprobs"]["token_logprobs"]) / 6
        for choice in all_of_them.json()["choices"]
    }
    best = sorted(means, key=lambda text: -means[text])[:2]
    fields = {"model": MODEL, "prompt": prompt, "n": 2, "best_of": 4, **body}
    ranked = whole_completion(http.post("/v1/completions", json=fields).text)
    assert [choice.text for choice in ranked.choices] == best
    assert ranked.usage is not None
    assert ranked.usage.completion_tokens == 24


def test_nothing_is_generated_if_nothing_is_asked_for(sdk: OpenAI) -> None:
    answer = complete(sdk, COUNT, {"max_tokens": 0})
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0


def test_a_model_that_cannot_fill_in(http: httpx.Client) -> None:
    fields = {"model": MODEL, "prompt": "def f(x):", "suffix": "return y"}
    response = http.post("/v1/completions", json=fields)
    assert response.status_code == 400
    error = error_of(response.content)
    assert error["param"] == "suffix"
