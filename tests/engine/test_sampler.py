"""The sampler against a plain reference, and against llama.cpp's own chain over whole rows."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.engine import llama
from server.engine.batch import Tokens
from server.engine.llama import CANDIDATE, Chain, Logits, backend, samplers
from server.engine.sampler import BLOCK, SEEDS, Sampler
from server.engine.vocabulary import Vocabulary
from server.engine_config import EngineConfig
from server.sampling import SamplingParams
from tests.engine.fake import FakeTokenizer

N_VOCAB = 2000
ENDS = (0, 7)
OPEN = {"top_k": 0, "min_p": 0.0, "seed": 1}
"""Nothing but the temperature and the draw."""


class Made(FakeTokenizer):
    """A vocabulary of the size wanted, of which two tokens end an answer."""

    def __init__(self, n_tokens: int = N_VOCAB, pointer: Any = None):
        self.n_tokens = n_tokens
        self.pointer = pointer

    def is_end(self, token: int) -> bool:
        return token in ENDS


@pytest.fixture(scope="module")
def raw(model_path: Path) -> Iterator[llama.RawVocabulary]:
    """The real model's vocabulary, which DRY asks for the tokens of its breakers."""
    log = llama.backend_init()
    with llama.Model(str(model_path), EngineConfig(), 0, log, lambda _: None) as model:
        yield model.vocabulary
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


@pytest.fixture(scope="module")
def vocabulary(raw: llama.RawVocabulary) -> Vocabulary:
    return Vocabulary(Made(pointer=raw.pointer))


def ids(tokens: list[int]) -> Tokens:
    return np.array(tokens, np.int32)


PROMPT = [21, 22, 23, 24, 25] * 3 + [21, 22, 23]


def rows(n: int, seed: int = 0, n_vocab: int = N_VOCAB, scale: float = 3.0) -> list[Logits]:
    generator = np.random.default_rng(seed)
    made = (generator.normal(size=(n, n_vocab)) * scale).astype(np.float32)
    # Whatever the prompt repeats is likely, so that penalties have something to do.
    made[:, PROMPT[:5]] += 3 * scale + 3
    return list(made)


def choices(
    params: SamplingParams, vocabulary: Vocabulary, n: int = 60, scale: float = 1.0
) -> list[int]:
    """The answer to made-up logits."""
    sampler = Sampler(params, vocabulary, ids(PROMPT))
    tokens = list(PROMPT)
    for row in rows(n, scale=scale):
        tokens.append(sampler.sample(row, ids(tokens)))
    return tokens[len(PROMPT) :]


# What each parameter changes: the other parameters that it needs, and its own value.
EFFECTS: dict[str, tuple[dict[str, Any], Any]] = {
    "temperature": ({}, 0.2),
    "dynatemp_range": ({}, 0.9),
    "dynatemp_exponent": ({"dynatemp_range": 0.9}, 4.0),
    "top_k": ({}, 2),
    "top_p": ({}, 0.3),
    "min_p": ({}, 0.5),
    "typical_p": ({}, 0.2),
    "top_n_sigma": ({}, 0.5),
    "xtc_probability": ({"xtc_threshold": 0.01}, 1.0),
    "xtc_threshold": ({"xtc_probability": 1.0}, 0.01),
    "mirostat": ({}, 2),
    "mirostat_tau": ({"mirostat": 1}, 0.5),
    "mirostat_eta": ({"mirostat": 2}, 2.0),
    "adaptive_target": ({}, 0.9),
    "adaptive_decay": ({"adaptive_target": 0.1}, 0.0),
    "dry_multiplier": ({}, 5.0),
    "dry_base": ({"dry_multiplier": 0.5, "dry_allowed_length": 0, "temperature": 0.5}, 20.0),
    "dry_allowed_length": ({"dry_multiplier": 5.0}, 1000),
    "dry_penalty_last_n": ({"dry_multiplier": 5.0}, 4),
    # A token of the prompt's repeat is made a breaker below.
    "dry_sequence_breakers": ({"dry_multiplier": 5.0}, ()),
    "repeat_penalty": ({}, 2.0),
    "repeat_last_n": ({"repeat_penalty": 2.0}, 2),
    "presence_penalty": ({}, 2.0),
    "frequency_penalty": ({}, 2.0),
    "logit_bias": ({}, ((99, 20.0),)),
    "seed": ({}, 2),
    "ignore_eos": ({"logit_bias": ((ENDS[0], 20.0),)}, True),
    "min_tokens": ({"logit_bias": ((ENDS[0], 20.0),)}, 10),
}


def test_the_table_is_complete() -> None:
    assert set(EFFECTS) == set(SamplingParams.model_fields)


@pytest.mark.parametrize("name", EFFECTS)
def test_each_parameter_has_an_effect(
    name: str, vocabulary: Vocabulary, raw: llama.RawVocabulary
) -> None:
    needed, value = EFFECTS[name]
    if name == "dry_sequence_breakers":
        breaker = raw.piece(PROMPT[2]).decode()
        needed = {**needed, name: (breaker,)}
    without = choices(SamplingParams.model_validate({**OPEN, **needed}), vocabulary)
    with_it = choices(SamplingParams.model_validate({**OPEN, **needed, name: value}), vocabulary)
    assert with_it != without


def reference(params: SamplingParams, vocabulary: Vocabulary, seed: int) -> Chain:
    """The whole chain as llama.cpp would have it, penalties and bias included."""
    p, c = params, backend.C
    bans = [(t, -np.inf) for t in ENDS] if p.ignore_eos else []
    bias = [*p.logit_bias, *bans]
    biases = (c.llama_logit_bias * max(1, len(bias)))(*(c.llama_logit_bias(*b) for b in bias))
    n_vocab = vocabulary.n_tokens
    window = 1000 if p.dry_penalty_last_n < 0 else p.dry_penalty_last_n
    dry = (p.dry_multiplier, p.dry_base, p.dry_allowed_length, window)
    chain = Chain(
        [
            c.llama_sampler_init_logit_bias(n_vocab, len(bias), biases),
            c.llama_sampler_init_penalties(
                n_vocab,
                1000 if p.repeat_last_n < 0 else p.repeat_last_n,
                p.repeat_penalty,
                p.frequency_penalty,
                p.presence_penalty,
            ),
            samplers.dry(vocabulary.raw.pointer, *dry, p.dry_sequence_breakers),
            samplers.top_n_sigma(p.top_n_sigma),
            samplers.top_k(p.top_k),
            samplers.typical(p.typical_p),
            samplers.top_p(p.top_p),
            samplers.min_p(p.min_p),
            samplers.xtc(p.xtc_probability, p.xtc_threshold, seed),
            samplers.dynamic_temperature(p.temperature, p.dynatemp_range, p.dynatemp_exponent),
            samplers.draw(seed),
        ]
    )
    for token in PROMPT:
        chain.accept(token)
    return chain


def whole(row: Logits) -> NDArray[Any]:
    candidates = np.zeros(len(row), CANDIDATE)
    candidates["id"] = np.arange(len(row))
    candidates["logit"] = row
    return candidates


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"top_k": 5},
    {"top_k": 200, "temperature": 1.7},
    {"top_k": -1, "min_p": 0.01},
    {"temperature": 0.8, "top_p": 0.95, "repeat_penalty": 1.1},
    {"repeat_penalty": 1.5, "repeat_last_n": -1, "top_k": 3},
    {"repeat_penalty": 1.5, "repeat_last_n": 3},
    {"repeat_penalty": 1.5, "repeat_last_n": 0},
    {"presence_penalty": 1.5, "frequency_penalty": 0.7, "top_k": 10},
    {"presence_penalty": -1.5, "frequency_penalty": -0.7},
    {"logit_bias": ((21, 4.0), (22, False), (300, 9.5)), "top_k": 4},
    {"logit_bias": ((0, 15.0), (9, 5.0)), "ignore_eos": True},
    {"top_n_sigma": 1.0, "typical_p": 0.8},
    {"xtc_probability": 0.5, "xtc_threshold": 0.05, "min_p": 0.0},
    {"dynatemp_range": 0.5, "dynatemp_exponent": 2.0, "top_k": 100},
    {"dry_multiplier": 0.8, "top_p": 0.9},
    {"dry_multiplier": 0.8, "dry_penalty_last_n": 6, "dry_allowed_length": 1},
    {"dry_multiplier": 2.0, "dry_penalty_last_n": 0},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_choices_are_those_of_llama_cpp_over_whole_rows(
    settings: dict[str, Any], vocabulary: Vocabulary
) -> None:
    for seed in range(4):
        params = SamplingParams.model_validate({**settings, "seed": seed})
        sampler = Sampler(params, vocabulary, ids(PROMPT))
        chain = reference(params, vocabulary, seed)
        tokens = list(PROMPT)
        for row in rows(50, seed):
            wanted = chain.pick(whole(row))
            tokens.append(sampler.sample(row.copy(), ids(tokens)))
            assert tokens[-1] == wanted
        assert len(set(tokens[len(PROMPT) :])) > 1


class Recorder:
    """Stands in for the chain: notes the candidates and takes the first."""

    def __init__(self, stages: list[Any]):
        del stages

    def pick(self, candidates: NDArray[Any]) -> int:
        self.candidates = candidates
        return int(candidates["id"][0])


# Few values, so that many are equal.
COARSE = st.integers(-4, 4).map(float) | st.just(-np.inf)


@given(
    n_vocab=st.integers(1, 6 * BLOCK + 3),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    coarse=st.lists(COARSE, max_size=40),
)
def test_candidates_hold_the_k_best(n_vocab: int, k: int, seed: int, coarse: list[float]) -> None:
    generator = np.random.default_rng(seed)
    row = generator.normal(size=n_vocab).astype(np.float32)
    row[generator.integers(0, n_vocab, len(coarse))] = coarse
    made: list[Recorder] = []

    def record(stages: list[Any]) -> Recorder:
        made.append(Recorder(stages))
        return made[-1]

    vocabulary = Vocabulary(Made(n_vocab))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.engine.sampler.Chain", record)
        sampler = Sampler(SamplingParams(top_k=k), vocabulary, ids([]))
        sampler.sample(row.copy(), ids([]))
    candidates = made[0].candidates
    assert candidates["id"].tolist() == sorted(set(candidates["id"].tolist()))
    assert (candidates["logit"] == row[candidates["id"]]).all()
    by_sort = np.sort(row)[::-1][:k]
    assert (np.sort(candidates["logit"])[::-1][:k] == by_sort).all()
    # Nobody is left out who is as good as one of the k best.
    assert {*np.flatnonzero(row >= by_sort[-1]).tolist()} <= set(candidates["id"].tolist())


def test_few_candidates_are_left_of_a_large_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Recorder] = []

    def record(stages: list[Any]) -> Recorder:
        made.append(Recorder(stages))
        return made[-1]

    monkeypatch.setattr("server.engine.sampler.Chain", record)
    n_vocab = 49_152
    sampler = Sampler(SamplingParams(), Vocabulary(Made(n_vocab)), ids([]))
    sampler.sample(rows(1, n_vocab=n_vocab)[0], ids([]))
    assert 40 <= len(made[0].candidates) < 200


def plain_adjust(
    params: SamplingParams, row: list[float], tokens: list[int], n_prompt: int
) -> list[float]:
    """Bias, bans and penalties, one token at a time."""
    row = list(row)
    for token, bias in params.logit_bias:
        row[token] += bias
    if params.ignore_eos or len(tokens) - n_prompt < params.min_tokens:
        for end in ENDS:
            row[end] = -np.inf
    n = len(tokens) if params.repeat_last_n < 0 else params.repeat_last_n
    window = tokens[len(tokens) - min(n, len(tokens)) :]
    for token in set(window):
        if row[token] > 0:
            row[token] /= params.repeat_penalty
        else:
            row[token] *= params.repeat_penalty
        row[token] -= window.count(token) * params.frequency_penalty + params.presence_penalty
    return row


@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.lists(st.integers(0, 19), max_size=30),
    n_prompt=st.integers(0, 30),
    repeat_penalty=st.sampled_from([1.0, 0.5, 1.3]),
    repeat_last_n=st.integers(-1, 40),
    presence_penalty=st.sampled_from([0.0, 1.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.5, -1.0]),
    bias=st.dictionaries(st.integers(0, 19), st.floats(-9, 9) | st.just(-np.inf), max_size=5),
    ignore_eos=st.booleans(),
    min_tokens=st.integers(0, 30),
)
def test_adjustments_are_those_of_a_plain_reference(
    seed: int, tokens: list[int], n_prompt: int, bias: dict[int, float], **settings: Any
) -> None:
    n_prompt = min(n_prompt, len(tokens))
    params = SamplingParams(temperature=0, logit_bias=tuple(bias.items()), **settings)
    row = np.random.default_rng(seed).normal(size=20).astype(np.float32)
    wanted = plain_adjust(params, row.tolist(), tokens, n_prompt)
    sampler = Sampler(params, Vocabulary(Made(20)), ids(tokens[:n_prompt]))
    chosen = sampler.sample(row, ids(tokens))
    np.testing.assert_allclose(row, np.array(wanted, np.float32), rtol=1e-5, atol=1e-5)
    assert chosen == row.argmax()


def test_min_tokens_counts_the_answer_and_not_the_prompt() -> None:
    params = SamplingParams(temperature=0, min_tokens=2)
    sampler = Sampler(params, Vocabulary(Made(20)), ids([5] * 9))
    chosen: list[int] = []
    for _ in range(4):
        row = np.zeros(20, np.float32)
        row[ENDS[1]], row[11] = 2.0, 1.0
        chosen.append(sampler.sample(row, ids([5] * 9 + chosen)))
    assert chosen == [11, 11, ENDS[1], ENDS[1]]


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({}, True),
        ({"top_k": 3, "seed": 5, "repeat_penalty": 2.0, "repeat_last_n": 0}, True),
        ({"temperature": 0.1}, False),
        ({"repeat_penalty": 1.1}, False),
        ({"presence_penalty": 0.1}, False),
        ({"frequency_penalty": 0.1}, False),
        ({"logit_bias": ((3, 1.0),)}, False),
        ({"ignore_eos": True}, False),
        ({"min_tokens": 1}, False),
        ({"dry_multiplier": 0.1}, False),
    ],
)
def test_plain_is_greedy_on_unchanged_logits(
    settings: dict[str, Any], plain: bool, vocabulary: Vocabulary
) -> None:
    params = SamplingParams.model_validate({"temperature": 0, **settings})
    sampler = Sampler(params, vocabulary, ids(PROMPT))
    assert sampler.plain == plain
    if plain:
        for row in rows(20):
            before = row.copy()
            assert sampler.sample(row, ids(PROMPT)) == before.argmax()
            assert (row == before).all()


def test_temperature_0_is_greedy_whatever_the_seed(vocabulary: Vocabulary) -> None:
    greedy = [int(row.argmax()) for row in rows(60, scale=1.0)]
    for seed in (1, 2, None):
        assert choices(SamplingParams(temperature=0, seed=seed, mirostat=2), vocabulary) == greedy


@pytest.mark.parametrize("seed", [0, 1, -1, 42, SEEDS, SEEDS + 5, 2**70, -(2**70)])
def test_a_seed_reproduces(seed: int, vocabulary: Vocabulary) -> None:
    """2^32 - 1 too, by which llama.cpp means a random one."""
    params = SamplingParams(seed=seed, xtc_probability=0.3, xtc_threshold=0.05)
    assert choices(params, vocabulary) == choices(params, vocabulary)


def test_seeds_differ(vocabulary: Vocabulary) -> None:
    seen = {tuple(choices(SamplingParams(seed=seed), vocabulary)) for seed in range(10)}
    assert len(seen) == 10


def test_no_seed_draws_one_each_time(vocabulary: Vocabulary) -> None:
    params = SamplingParams(top_k=0, min_p=0)
    assert len({tuple(choices(params, vocabulary, scale=0.1)) for _ in range(5)}) == 5


@pytest.mark.parametrize("mirostat", [1, 2])
def test_mirostat_looks_past_top_k(mirostat: int, vocabulary: Vocabulary) -> None:
    """It replaces what drops tokens: top_k 1 would leave it no choice."""
    params = SamplingParams(mirostat=mirostat, mirostat_tau=9, top_k=1, seed=1)
    greedy = [int(row.argmax()) for row in rows(60, scale=1.0)]
    assert choices(params, vocabulary) != greedy


def dry_choice(
    raw: llama.RawVocabulary, prompt: list[int], favourite: int, gap: float = 1.0, **settings: Any
) -> bool:
    """Whether the favourite is still chosen, greedily, with DRY."""
    vocabulary = Vocabulary(raw)
    row = np.zeros(vocabulary.n_tokens, np.float32)
    row[favourite], row[600] = 9 + gap, 9.0
    params = SamplingParams.model_validate({"temperature": 0, "dry_multiplier": 1.0, **settings})
    chosen = Sampler(params, vocabulary, ids(prompt)).sample(row, ids(prompt))
    assert chosen in (favourite, 600)
    return chosen == favourite


def test_dry_penalises_a_repeat(raw: llama.RawVocabulary) -> None:
    prompt = [501, 502, 503, 504, 505, 501, 502, 503]
    assert dry_choice(raw, prompt, 505)
    assert not dry_choice(raw, prompt, 504)
    assert dry_choice(raw, prompt, 504, dry_multiplier=0.0)
    assert dry_choice(raw, prompt, 504, dry_allowed_length=4)
    assert dry_choice(raw, prompt, 504, dry_penalty_last_n=4)
    assert dry_choice(raw, prompt, 504, gap=5.0)
    assert not dry_choice(raw, prompt, 504, gap=5.0, dry_base=6.0)


@pytest.mark.parametrize("breaker", ["\n", ":", '"', "*", "a longer one"])
def test_dry_breakers_end_a_repeat(raw: llama.RawVocabulary, breaker: str) -> None:
    tokens = raw.tokenize(breaker, add_special=False, parse_special=False).tolist()
    prompt = [501, 502, *tokens, 504, 505, 501, 502, *tokens]
    # The end of the breaker itself is repeated too, which the allowed length covers.
    length = len(tokens)
    assert dry_choice(raw, prompt, 504, dry_allowed_length=length, dry_sequence_breakers=(breaker,))
    assert not dry_choice(raw, prompt, 504, dry_allowed_length=length, dry_sequence_breakers=())


@pytest.mark.parametrize("last_n", [-1, 2**31 - 1])
def test_dry_asks_for_no_absurd_window(last_n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp takes -1 for 0, and allocates whatever it is told: the process would abort."""
    windows: list[int] = []

    def dry(*settings: Any) -> Any:
        windows.append(settings[4])
        return samplers.greedy()

    monkeypatch.setattr("server.engine.llama.samplers.dry", dry)
    params = SamplingParams(dry_multiplier=1.0, dry_penalty_last_n=last_n)
    Sampler(params, Vocabulary(Made()), ids(PROMPT))
    assert len(PROMPT) <= windows[0] <= 2**20


def test_dry_takes_note_of_the_answer(raw: llama.RawVocabulary) -> None:
    """A repeat within the answer, which no prompt has shown."""
    vocabulary = Vocabulary(raw)
    params = SamplingParams(temperature=0, dry_multiplier=2.0)
    sampler = Sampler(params, vocabulary, ids([]))
    chosen: list[int] = []
    for wanted in [501, 502, 503, 504, 505, 501, 502, 503]:
        row = np.zeros(vocabulary.n_tokens, np.float32)
        row[wanted], row[600] = 10, 9
        chosen.append(sampler.sample(row, ids(chosen)))
    assert chosen[-1] == 600
    assert 600 not in chosen[:-1]


def test_sampled_shares_follow_the_probabilities() -> None:
    vocabulary = Vocabulary(Made(300))
    row = np.full(300, -30.0, np.float32)
    row[[3, 200, 299]] = np.log([0.5, 0.3, 0.2])
    sampler = Sampler(SamplingParams(seed=7, top_k=10), vocabulary, ids([]))
    drawn = [sampler.sample(row.copy(), ids([])) for _ in range(4000)]
    shares = [drawn.count(token) / len(drawn) for token in (3, 200, 299)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    assert any(a != b for a, b in pairwise(drawn))
