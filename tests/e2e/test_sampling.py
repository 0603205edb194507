"""Sampling over the wire: what is asked for changes the answer, and a seed brings it back."""

import pytest
from openai import OpenAI

from tests.e2e.asking import FRESH, GREEDY, Body, complete, say, user
from tests.e2e.process import Corral

STORY = user("Tell me a story about a fox.")


def tell(sdk: OpenAI, body: Body) -> str:
    fields = {"cache_prompt": False, "max_tokens": 16, "ignore_eos": True}
    return say(sdk, STORY, {**fields, **body})


def test_a_seed_brings_the_answer_back(sdk: OpenAI) -> None:
    texts = [tell(sdk, {"temperature": 1, "seed": seed}) for seed in (1, 2, 3, 1, 2, 3)]
    assert texts[:3] == texts[3:]
    assert len(set(texts)) == 3


def test_without_a_seed_answers_differ(sdk: OpenAI) -> None:
    assert len({tell(sdk, {"temperature": 1.5, "min_p": 0}) for _ in range(3)}) > 1


def test_greedy_needs_no_seed(sdk: OpenAI) -> None:
    assert tell(sdk, {"temperature": 0, "seed": 1}) == tell(sdk, {"temperature": 0, "seed": 2})


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 1},
        {"top_p": 0},
        {"min_p": 1},
        {"top_n_sigma": 1e-6},
        {"temperature": 0.001},
    ],
    ids=str,
)
def test_what_leaves_one_token_is_greedy(sdk: OpenAI, fields: Body) -> None:
    sampled = {"temperature": 1, "seed": 5}
    assert tell(sdk, {**sampled, **fields}) == tell(sdk, GREEDY) != tell(sdk, sampled)


@pytest.mark.parametrize(
    "fields",
    [
        {"repeat_penalty": 1.8},
        {"repetition_penalty": 1.8},
        {"frequency_penalty": 2},
        {"presence_penalty": 2},
        {"dry_multiplier": 4},
        {"dry_multiplier": 4, "dry_penalty_last_n": 64},
    ],
    ids=str,
)
def test_penalties_end_a_repetition(sdk: OpenAI, fields: Body) -> None:
    prompt = "The cat, the cat, the cat, the cat, the cat, the cat,"
    body = {**FRESH, "max_tokens": 8, "ignore_eos": True}
    assert complete(sdk, prompt, body).choices[0].text == " the cat, the cat, the cat"
    other = complete(sdk, prompt, {**body, **fields}).choices[0].text
    assert not other.startswith(" the cat, the cat, the")


@pytest.mark.parametrize(
    "fields",
    [
        {"typical_p": 0.2},
        {"xtc_probability": 1, "xtc_threshold": 0.05},
        {"mirostat": 1, "mirostat_tau": 2},
        {"mirostat": 2, "mirostat_tau": 2},
        {"dynatemp_range": 0.9},
        {"adaptive_target": 0.1},
    ],
    ids=str,
)
def test_other_fields_reach_the_sampler(sdk: OpenAI, fields: Body) -> None:
    sampled = {"temperature": 1, "seed": 5, "min_p": 0, "max_tokens": 32}
    text = tell(sdk, {**sampled, **fields})
    assert text == tell(sdk, {**sampled, **fields})
    assert text != tell(sdk, sampled)


@pytest.mark.parametrize("ban", [False, -100])
def test_a_banned_token_never_comes(sdk: OpenAI, ban: float) -> None:
    body = {**FRESH, "max_tokens": 4, "ignore_eos": True}
    # Of two tokens that are both wanted more than all others, the ban leaves one.
    wanted = {"1234": 90, "1235": 80}
    first = tell(sdk, {**body, "logit_bias": wanted})
    other = tell(sdk, {**body, "logit_bias": {"1235": 90}})
    assert first != other
    assert tell(sdk, {**body, "logit_bias": {**wanted, "1234": ban}}) == other
    # And where the vocabulary is as it is, it takes the likeliest.
    letters = "A B C D E F G A B C D E F G A B C"
    assert complete(sdk, letters, body).choices[0].text.startswith(" D")
    without = complete(sdk, letters, {**body, "logit_bias": {str(D): ban}}).choices[0].text
    assert not without.startswith(" D")


@pytest.mark.parametrize(
    "fields",
    [
        {"dry_multiplier": 1, "dry_penalty_last_n": 2**31 - 1},
        {"dry_multiplier": 1e30, "dry_base": 1e30, "dry_allowed_length": 0},
        {"repeat_penalty": 100, "repeat_last_n": 2**31 - 1},
        {"top_k": 2**31 - 1, "min_p": 0},
        {"temperature": 100, "min_p": 0, "top_k": 0},
        {"mirostat": 1, "mirostat_tau": 1e30, "mirostat_eta": 1e30},
        {"mirostat": 2, "mirostat_tau": 0},
        {"typical_p": 1e-30},
        {"xtc_probability": 1, "xtc_threshold": 0},
        {"seed": -(2**63)},
        {"min_tokens": 2**31 - 1},
        {"logit_bias": {"1": 1e38, "2": -1e38}},
    ],
    ids=str,
)
def test_extremes_are_answered(corral: Corral, sdk: OpenAI, fields: Body) -> None:
    workers = {worker.pid for worker in corral.workers()}
    answer = complete(sdk, "Once upon a time", {"max_tokens": 4, **fields})
    assert answer.choices[0].finish_reason
    assert workers <= {worker.pid for worker in corral.workers()}


D = 422
"""The token ` D`."""
