"""Completions of the real model: every form of prompt, in order."""

import httpx
from openai import OpenAI

from tests.e2e.asking import FRESH, GREEDY, MODEL, complete, streamed_completion
from tests.e2e.wire import fold_completion

COUNT = "1, 2, 3, 4, 5, 6, 7,"


def test_a_whole_completion(sdk: OpenAI) -> None:
    answer = complete(sdk, COUNT, {**GREEDY, "max_tokens": 9, "ignore_eos": True})
    assert answer.model == MODEL
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text.startswith(" 8, 9,")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 9


def test_sixteen_tokens_unless_said(sdk: OpenAI) -> None:
    usage = complete(sdk, COUNT, {**GREEDY, "ignore_eos": True}).usage
    assert usage is not None
    assert usage.completion_tokens == 16


def test_a_stream_says_what_the_whole_completion_says(sdk: OpenAI, http: httpx.Client) -> None:
    body = {**FRESH, "max_tokens": 12}
    whole = complete(sdk, COUNT, body)
    fold = streamed_completion(http, COUNT, body)
    assert fold.text == whole.choices[0].text
    assert fold.reason == whole.choices[0].finish_reason
    assert fold.usage == whole.usage


def test_no_usage_unless_asked_for(http: httpx.Client) -> None:
    body = {**GREEDY, "model": MODEL, "prompt": COUNT, "max_tokens": 2, "stream": True}
    assert fold_completion(http.post("/v1/completions", json=body).content, False).text


def test_a_prompt_of_token_ids(sdk: OpenAI) -> None:
    body = {**FRESH, "max_tokens": 6, "ignore_eos": True}
    ids = complete(sdk, [504, 3575, 282, 4649, 314], body)
    assert ids.usage is not None
    assert ids.usage.prompt_tokens == 5
    text = complete(sdk, "The capital of France is", body)
    assert ids.choices == text.choices
    assert ids.usage == text.usage


def test_prompts_are_answered_in_order(sdk: OpenAI, http: httpx.Client) -> None:
    prompts = [COUNT, "Monday, Tuesday, Wednesday, Thursday,", "A B C D E F G"]
    body = {**GREEDY, "max_tokens": 4, "ignore_eos": True}
    alone = [complete(sdk, prompt, body) for prompt in prompts]
    together = complete(sdk, prompts, body)
    texts = [answer.choices[0].text for answer in alone]
    assert [choice.text for choice in together.choices] == texts
    assert together.usage is not None
    assert together.usage.completion_tokens == 12
    counts = [answer.usage.prompt_tokens for answer in alone if answer.usage]
    assert together.usage.prompt_tokens == sum(counts)
    fold = streamed_completion(http, prompts, body)
    assert [fold.texts[index] for index in range(3)] == texts


def test_prompts_of_token_ids_and_several_choices(sdk: OpenAI) -> None:
    prompts = [[504, 3575, 282, 4649, 314], [28, 29]]
    body = {"n": 2, "seed": 3, "temperature": 1, "max_tokens": 5, "ignore_eos": True}
    answer = complete(sdk, prompts, body)
    assert len(answer.choices) == 4
    assert len({choice.text for choice in answer.choices}) == 4
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 7
    assert answer.usage.completion_tokens == 20
