"""What was computed once is not computed again, and nobody can tell from the answer."""

import uuid

import httpx
from openai import OpenAI
from openai.types import CompletionUsage

from tests.e2e.asking import FRESH, GREEDY, chat, complete, streamed_chat, user

LONG = " ".join(f"Item {number} is number {number}." for number in range(40))


def n_cached(usage: CompletionUsage | None) -> int:
    """The prompt tokens that were not computed again."""
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens is not None
    return usage.prompt_tokens_details.cached_tokens


def test_a_prefix_is_computed_once(sdk: OpenAI, http: httpx.Client) -> None:
    shared = f"{uuid.uuid4()} {LONG}"
    body = {**GREEDY, "max_tokens": 2}
    first = chat(sdk, user(f"{shared} What is first?"), body)
    assert first.usage is not None
    again = chat(sdk, user(f"{shared} What is last?"), body)
    assert n_cached(again.usage) > 0.9 * first.usage.prompt_tokens
    fold = streamed_chat(http, user(f"{shared} What is in the middle?"), body)
    assert n_cached(fold.counted) > 0.9 * first.usage.prompt_tokens


def test_a_client_can_opt_out(sdk: OpenAI) -> None:
    prompt = f"{uuid.uuid4()} {LONG}"
    out = {**FRESH, "max_tokens": 2}
    assert n_cached(complete(sdk, prompt, out).usage) == 0
    # Nor is such a request's prefix kept for others.
    cached = complete(sdk, prompt, {**GREEDY, "max_tokens": 2})
    assert n_cached(cached.usage) == 0
    assert n_cached(complete(sdk, prompt, out).usage) == 0
    assert n_cached(complete(sdk, prompt, {**GREEDY, "max_tokens": 2}).usage) > 0


def numbers() -> str:
    """A prompt that nobody has sent yet, and that goes on in one way only."""
    return f"{uuid.uuid4().hex[:4]}: " + ", ".join(str(number) for number in range(1, 60)) + ","


def test_the_answer_is_the_same(sdk: OpenAI) -> None:
    prompt = numbers()
    body = {"max_tokens": 12, "ignore_eos": True}
    fresh = complete(sdk, prompt, {**FRESH, **body})
    first = complete(sdk, prompt, {**GREEDY, **body})
    again = complete(sdk, prompt, {**GREEDY, **body})
    assert n_cached(again.usage) > 0
    assert again.choices == first.choices == fresh.choices
    assert fresh.choices[0].text.startswith(" 60, 61,")


def test_one_computes_what_several_share(sdk: OpenAI) -> None:
    prompt = numbers()
    body = {"max_tokens": 12, "ignore_eos": True}
    fresh = complete(sdk, prompt, {**FRESH, **body})
    answer = complete(sdk, [prompt, prompt, prompt], {**GREEDY, **body})
    assert answer.usage is not None
    # The others copy.
    assert n_cached(answer.usage) > 0.6 * answer.usage.prompt_tokens
    assert [choice.text for choice in answer.choices] == [fresh.choices[0].text] * 3
