"""Sequence: what a request is checked for before it may run."""

import pytest

from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.errors import ContextLengthExceeded, InvalidRequest
from server.ipc import GenerateRequest, Prompt, Text
from server.sampling import SamplingParams
from tests.engine.fake import GREEDY, N_VOCAB, FakeTokenizer

VOCABULARY = Vocabulary(FakeTokenizer())


def sequence(prompt: Prompt, max_tokens: int | None = None, n_ctx: int = 10) -> Sequence:
    request = GenerateRequest(prompt, GREEDY, max_tokens, prompt_param="messages")
    return Sequence(1, request, VOCABULARY, n_ctx)


def test_a_prompt_must_leave_room_for_a_token() -> None:
    assert sequence(Text("a" * 9)).max_tokens == 1
    with pytest.raises(
        ContextLengthExceeded, match=r"prompt of 10 tokens, context of 10"
    ) as caught:
        sequence(Text("a" * 10))
    assert caught.value.param == "messages"


@pytest.mark.parametrize("prompt", [Text(""), ()])
def test_an_empty_prompt_is_refused_where_the_model_adds_nothing(prompt: Prompt) -> None:
    with pytest.raises(InvalidRequest, match="the prompt is empty"):
        sequence(prompt)


@pytest.mark.parametrize("token", [-1, N_VOCAB, 2**40])
def test_token_ids_must_be_in_the_vocabulary(token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"token {token} is not in the vocabulary of 64"):
        sequence((1, token))


def test_biased_token_ids_must_be_in_the_vocabulary() -> None:
    sampling = SamplingParams(logit_bias=((64, 1.0),))
    with pytest.raises(InvalidRequest, match="token 64") as caught:
        Sequence(1, GenerateRequest((1,), sampling), VOCABULARY, 10)
    assert caught.value.param == "logit_bias"


def test_the_answer_is_limited_by_the_context() -> None:
    assert sequence((1, 2, 3)).max_tokens == 7
    assert sequence((1, 2, 3), max_tokens=100).max_tokens == 7
    assert sequence((1, 2, 3), max_tokens=2).max_tokens == 2


def test_counts() -> None:
    s = sequence((1, 2, 3))
    s.n_cached = 3
    s.append(9)
    assert (s.n_pending, s.n_completion, s.n_tokens) == (1, 1, 4)
    assert s.tokens.tolist() == [1, 2, 3, 9]
    assert s.cached.tolist() == s.prompt.tolist() == [1, 2, 3]
    assert (s.take_unsent(), s.take_unsent()) == (1, 0)
