"""Scores are the model's own, whatever is batched, chunked, sampled, stopped or sent back."""

from collections.abc import Sequence as Ids

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.llama import Logits
from server.engine.scores import ScoreQueue, score
from server.engine.vocabulary import Vocabulary
from server.ipc import Accepted, Delta, Echo, Finished, GenerateRequest, TokenScore
from server.sampling import SamplingParams
from tests.engine.fake import END, GREEDY, N_VOCAB, Bench, FakeContext, FakeTokenizer, next_logits

VOCABULARY = Vocabulary(FakeTokenizer())


def log_softmax(logits: Logits) -> list[float]:
    shifted = logits.astype(np.float64) - logits.max()
    result: list[float] = (shifted - np.log(np.exp(shifted).sum())).tolist()
    return result


def close_to(value: float) -> object:
    return pytest.approx(value, abs=1e-5)  # pyright: ignore[reportUnknownMemberType]


@given(seed=st.integers(0, 1000), token=st.integers(0, N_VOCAB - 1), n_top=st.integers(0, 20))
def test_a_score_is_the_log_softmax(seed: int, token: int, n_top: int) -> None:
    logits = np.random.default_rng(seed).normal(scale=8, size=N_VOCAB).astype(np.float32)
    expected = log_softmax(logits)
    told = score(logits, token, n_top, VOCABULARY)
    assert told.logprob == close_to(expected[token])
    best = sorted(range(N_VOCAB), key=lambda t: -logits[t])[:n_top]
    assert [id for id, _, _ in told.top] == best
    for id, piece, logprob in told.top:
        assert piece == VOCABULARY.piece(id)
        assert logprob == close_to(expected[id])


def test_of_equal_tokens_the_first_is_better() -> None:
    told = score(np.zeros(N_VOCAB, np.float32), 5, 3, VOCABULARY)
    assert [id for id, _, _ in told.top] == [0, 1, 2]


def scored(n: int) -> TokenScore:
    return TokenScore(n, b"x" * n, -1.0)


def test_scores_come_with_the_text_of_their_tokens() -> None:
    queue = ScoreQueue(may_stop=True)
    for n in (2, 0, 3):
        queue.add(scored(n))
    assert queue.take("x") == ()
    assert queue.take("xx") == (scored(2), scored(0))
    assert queue.finish("xx", stopped=False) == (scored(3),)


def test_behind_a_stop_string_nothing_is_told() -> None:
    queue = ScoreQueue(may_stop=True)
    for n in (2, 3, 4):
        queue.add(scored(n))
    assert queue.take("") == ()
    assert queue.finish("xxx", stopped=True) == (scored(2), scored(3))


def test_without_stop_strings_scores_wait_for_nothing() -> None:
    queue = ScoreQueue(may_stop=False)
    queue.add(scored(2))
    assert queue.take("") == (scored(2),)
    queue.add(scored(0))
    assert queue.finish("", stopped=False) == (scored(0),)


def submit(bench: Bench, id: int, prompt: Ids[int], **settings: object) -> None:
    request = GenerateRequest(tuple(prompt), **{"sampling": GREEDY, **settings})  # pyright: ignore
    bench.add(id, request)


def scores_of(bench: Bench, id: int) -> list[TokenScore]:
    told = (e for e in bench.events if isinstance(e, Delta | Finished) and e.id == id)
    return [entry for event in told for entry in event.scores]


def check_prompt(told: Ids[TokenScore], prompt: Ids[int], n_top: int) -> None:
    assert [entry.id for entry in told] == list(prompt)
    assert told[0].logprob is None and told[0].top == ()
    for i, entry in enumerate(told[1:], start=1):
        expected = log_softmax(next_logits(prompt[:i]))
        assert entry.logprob == close_to(expected[prompt[i]])
        assert len(entry.top) == n_top
        assert entry.top[0][0] == int(np.argmax(expected)) if n_top else True


@pytest.mark.parametrize("n_batch", [4, 7, 64])
@pytest.mark.parametrize("n_cells", [None, 70, 200])
def test_prompts_and_answers_are_scored_beside_others(n_batch: int, n_cells: int | None) -> None:
    bench = Bench(FakeContext(n_batch=n_batch, n_cells=n_cells), n_ubatch=5)
    shared = list(range(1, 30))
    bench.submit(0, shared, max_tokens=12)
    for id in (1, 2, 3, 4, 5):
        prompt = [*shared[: 6 * id], 60 - id]
        submit(bench, id, prompt, max_tokens=id, logprobs=id - 1, echo=id != 3)
    bench.run()
    for id in (1, 2, 3, 4, 5):
        prompt = [*shared[: 6 * id], 60 - id]
        bench.finished(id)
        echoes = [e for e in bench.events if isinstance(e, Echo) and e.id == id]
        if id == 3:
            assert echoes == []
        else:
            check_prompt(echoes[0].tokens, prompt, id - 1)
        for told in scores_of(bench, id):
            expected = log_softmax(next_logits(prompt))
            assert told.logprob == close_to(max(expected))
            assert [t for t, _, _ in told.top[:1]] == ([told.id] if id > 1 else [])
            prompt.append(told.id)


def test_a_prompt_alone_can_be_scored() -> None:
    bench = Bench(FakeContext(n_ctx=8))
    prompt = [3, 1, 4, 1, 5, 9, 2, 6]
    submit(bench, 1, prompt, max_tokens=0, logprobs=2, echo=True)
    bench.run()
    accepted, echo, finished = bench.events
    assert accepted == Accepted(1, 8)
    assert isinstance(echo, Echo)
    check_prompt(echo.tokens, prompt, 2)
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.n_completion, finished.text) == ("length", 0, "")
    assert finished.scores == ()


@pytest.mark.parametrize("prompt", [[3, 1, 4], [3]])
@pytest.mark.parametrize("logprobs", [None, 0])
@pytest.mark.parametrize("max_tokens", [0, 2])
def test_an_echo_comes_once_and_first(
    prompt: list[int], logprobs: int | None, max_tokens: int
) -> None:
    bench = Bench(FakeContext())
    submit(bench, 1, prompt, max_tokens=max_tokens, logprobs=logprobs, echo=True)
    bench.run()
    bench.finished(1)
    echo = bench.events[1]
    assert isinstance(echo, Echo)
    assert [entry.id for entry in echo.tokens] == prompt
    known = [entry.logprob is not None for entry in echo.tokens]
    assert known == [False] + [logprobs is not None] * (len(prompt) - 1)
    assert not any(isinstance(event, Echo) for event in bench.events[2:])


def test_scores_are_of_the_model_not_of_what_sampling_left() -> None:
    bench = Bench(FakeContext())
    best = int(next_logits([5, 6]).argmax())
    sampling = SamplingParams(temperature=0, logit_bias=((best, -100.0),))
    submit(bench, 1, [5, 6], max_tokens=1, logprobs=1, sampling=sampling)
    bench.run()
    (told,) = scores_of(bench, 1)
    expected = log_softmax(next_logits([5, 6]))
    assert told.id != best
    assert told.logprob == close_to(expected[told.id])
    assert told.top[0][0] == best
    assert told.top[0][2] == close_to(max(expected))


def test_the_ending_token_is_scored() -> None:
    bench = Bench(FakeContext())
    sampling = SamplingParams(temperature=0, logit_bias=((END, 100.0),))
    submit(bench, 1, [5], logprobs=0, sampling=sampling)
    bench.run()
    (told,) = scores_of(bench, 1)
    assert (told.id, told.piece) == (END, b"")


def test_control_tokens_of_a_prompt_are_written_out() -> None:
    class Named(FakeTokenizer):
        def piece(self, token: int, special: bool = False) -> bytes:
            return b"<end>" if special and token == END else super().piece(token)

    bench = Bench(FakeContext())
    bench.vocabulary.raw = Named()
    for id, logprobs in ((1, None), (2, 1)):
        submit(bench, id, [3, END, 4], max_tokens=0, logprobs=logprobs, echo=True)
    bench.run()
    told = [event.tokens for event in bench.events if isinstance(event, Echo)]
    assert [[score.piece for score in tokens] for tokens in told] == [[b"#", b"<end>", b"$"]] * 2
