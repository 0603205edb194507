"""Sampler: the logits of one sequence to its next token.

The order is llama.cpp's: first what changes logits (bias, bans, penalties), then DRY, then what
drops tokens, then the temperature, then the draw. The first group is applied here, to the few
tokens that it concerns; the others are llama.cpp's own samplers. Where `top_k` is the first of
them, they get only the k best tokens, which a threshold finds: the result is the same.
"""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from server.engine.batch import Tokens
from server.engine.llama import CANDIDATE, Chain, Logits, samplers
from server.engine.vocabulary import Vocabulary
from server.sampling import SamplingParams

if TYPE_CHECKING:
    from server.engine.grammar import Constraint

SEEDS = 2**32 - 1

DRY_WINDOW = 2**18
"""All that DRY can look at, in tokens: longer than contexts are."""

BLOCK = 128
"""Logits per block when the k best are looked for."""

Stage = Callable[[SamplingParams, Vocabulary, int], list[Any]]
"""Parameters, vocabulary and seed to llama.cpp samplers; an empty list where it is off."""


def _dry(p: SamplingParams, vocabulary: Vocabulary, _seed: int) -> list[Any]:
    if not p.dry_multiplier:
        return []
    return [
        samplers.dry(
            vocabulary.raw.pointer,
            p.dry_multiplier,
            p.dry_base,
            p.dry_allowed_length,
            _dry_window(p),
            p.dry_sequence_breakers,
        )
    ]


def _dry_window(p: SamplingParams) -> int:
    """llama.cpp takes -1 for none, and allocates what it is told."""
    last_n = p.dry_penalty_last_n
    return DRY_WINDOW if last_n < 0 else min(last_n, DRY_WINDOW)


def _truncation(p: SamplingParams, _vocabulary: Vocabulary, seed: int) -> list[Any]:
    if p.mirostat:
        return []
    return [
        *([samplers.top_n_sigma(p.top_n_sigma)] if p.top_n_sigma > 0 else []),
        *([samplers.top_k(p.top_k)] if p.top_k > 0 else []),
        *([samplers.typical(p.typical_p)] if p.typical_p < 1 else []),
        *([samplers.top_p(p.top_p)] if p.top_p < 1 else []),
        *([samplers.min_p(p.min_p)] if p.min_p > 0 else []),
        *_xtc(p, seed),
    ]


def _xtc(p: SamplingParams, seed: int) -> list[Any]:
    if not p.xtc_probability:
        return []
    return [samplers.xtc(p.xtc_probability, p.xtc_threshold, seed)]


def _temperature(p: SamplingParams, _vocabulary: Vocabulary, _seed: int) -> list[Any]:
    if p.dynatemp_range > 0:
        return [samplers.dynamic_temperature(p.temperature, p.dynatemp_range, p.dynatemp_exponent)]
    return [samplers.temperature(p.temperature)]


def _draw(p: SamplingParams, vocabulary: Vocabulary, seed: int) -> list[Any]:
    if p.mirostat == 1:
        return [samplers.mirostat(vocabulary.n_tokens, seed, p.mirostat_tau, p.mirostat_eta)]
    if p.mirostat == 2:
        return [samplers.mirostat_v2(seed, p.mirostat_tau, p.mirostat_eta)]
    if p.adaptive_target >= 0:
        return [samplers.adaptive_p(p.adaptive_target, p.adaptive_decay, seed)]
    return [samplers.draw(seed)]


STAGES: tuple[Stage, ...] = (_dry, _truncation, _temperature, _draw)
"""Every stage that llama.cpp does, in order."""


class Sampler:
    """Chooses the tokens of one sequence."""

    def __init__(
        self,
        params: SamplingParams,
        vocabulary: Vocabulary,
        prompt: Tokens,
        constraint: "Constraint | None" = None,
    ):
        self._params = params
        self._ends = vocabulary.ends
        self._constraint = constraint
        self._n_prompt = len(prompt)
        self._bias_ids = np.array([token for token, _ in params.logit_bias], np.int64)
        self._bias = np.array([bias for _, bias in params.logit_bias], np.float32)
        self._penalises = params.repeat_last_n != 0 and (
            params.repeat_penalty != 1.0
            or params.presence_penalty != 0.0
            or params.frequency_penalty != 0.0
        )
        needs_all = params.top_n_sigma > 0 or params.mirostat or params.dry_multiplier
        self._k = vocabulary.n_tokens if needs_all or params.top_k <= 0 else params.top_k
        greedy = params.temperature == 0 and not params.dry_multiplier
        self._chain = None if greedy else _chain(params, vocabulary, prompt)
        changes = self._penalises or params.logit_bias or params.ignore_eos or params.min_tokens
        self.plain = greedy and not changes and constraint is None
        """The best token of the unchanged logits is the answer."""

    def sample(self, logits: Logits, tokens: Tokens) -> int:
        """Choose from one row of logits, [n_vocab], which is changed in place.

        `tokens` are the prompt and the answer so far.
        """
        self._adjust(logits, tokens)
        if self._constraint is not None:
            return self._sample_allowed(logits, self._constraint)
        if self._chain is None:
            return int(logits.argmax())
        return self._chain.pick(candidates(logits, self._k))

    def _sample_allowed(self, logits: Logits, constraint: "Constraint") -> int:
        """Choose among what a grammar allows. It also says when an answer ends: bans give way."""
        best = int(logits.argmax())
        if self._chain is None and constraint.allows(best):
            return best
        constraint.mask(logits)
        allowed = np.flatnonzero(logits > -np.inf)
        if not len(allowed):
            ends: list[int] = self._ends.tolist()
            if not any(map(constraint.allows, ends)):
                raise constraint.dead_end()
            return next(filter(constraint.allows, ends))
        if self._chain is None:
            return int(logits.argmax())
        chosen = candidates(logits[allowed], self._k)
        chosen["id"] = allowed[chosen["id"]]
        return self._chain.pick(chosen)

    def accept(self, token: int) -> None:
        """Take note of a token that was not chosen here."""
        if self._chain is not None and self._params.dry_multiplier:
            self._chain.accept(token)

    def _adjust(self, logits: Logits, tokens: Tokens) -> None:
        """Apply bias, bans and penalties."""
        params = self._params
        if len(self._bias):
            np.add.at(logits, self._bias_ids, self._bias)
        if params.ignore_eos or len(tokens) - self._n_prompt < params.min_tokens:
            logits[self._ends] = -np.inf
        if self._penalises:
            last_n = params.repeat_last_n
            window = tokens if last_n < 0 else tokens[max(0, len(tokens) - last_n) :]
            seen = logits[window]
            penalty = params.repeat_penalty
            seen = np.where(seen > 0, seen / penalty, seen * penalty)
            # A token that was seen twice is written twice, with the same value.
            logits[window] = seen - params.presence_penalty
            if params.frequency_penalty:
                np.subtract.at(logits, window, params.frequency_penalty)


def _chain(params: SamplingParams, vocabulary: Vocabulary, prompt: Tokens) -> Chain:
    """llama.cpp's samplers for these parameters, with the prompt taken note of."""
    # llama.cpp takes its largest seed as a wish for a random one.
    seed = secrets.randbelow(SEEDS) if params.seed is None else params.seed % SEEDS
    if params.temperature == 0:
        chain = Chain([*_dry(params, vocabulary, seed), samplers.greedy()])
    else:
        chain = Chain([s for stage in STAGES for s in stage(params, vocabulary, seed)])
    if params.dry_multiplier:
        for token in prompt[-_dry_window(params) :].tolist():
            chain.accept(token)
    return chain


def candidates(logits: Logits, k: int) -> NDArray[Any]:
    """The k best tokens of a row and whatever equals the worst of them, in the order of ids.

    The k-th best of the blocks' maxima cannot be better than the k-th best of all: what is below
    it is not among the k best.
    """
    n_blocks = len(logits) // BLOCK
    if k >= n_blocks:
        ids = np.arange(len(logits), dtype=np.int32)
    else:
        # A block is every n_blocks-th logit, which is faster than neighbours.
        maxima = logits[: n_blocks * BLOCK].reshape(BLOCK, n_blocks).max(axis=0)
        threshold = np.partition(maxima, n_blocks - k)[n_blocks - k]
        ids = np.flatnonzero(logits >= threshold)
    candidates = np.zeros(len(ids), CANDIDATE)
    candidates["id"] = ids
    candidates["logit"] = logits[ids]
    return candidates
