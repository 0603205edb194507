"""Perplexity and KL divergence, against sums done by hand."""

from math import exp, inf, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from server.engine.divergence import BLOCK, Rows, Scores, kl, log_softmax

LOGITS = arrays(np.float32, (3, 5), elements=st.floats(-50, 50, width=32))


@given(LOGITS)
def test_probabilities_add_up_to_one(logits: Rows) -> None:
    found = log_softmax(logits)
    assert found.dtype == np.float64
    assert np.exp(found).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-12)
    differences = logits[:, 1:].astype(np.float64) - logits[:, :-1]
    assert np.diff(found, axis=1) == pytest.approx(differences, abs=1e-9)


@given(LOGITS, LOGITS)
def test_divergence_is_never_negative_and_zero_from_itself(one: Rows, other: Rows) -> None:
    p, q = log_softmax(one), log_softmax(other)
    assert (kl(p, q) >= -1e-12).all()
    assert (kl(p, p) == 0).all()


def test_divergence_of_two_coins() -> None:
    fair, biased = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    assert kl(fair, biased)[0] == pytest.approx(0.5 * log(0.5 / 0.9) + 0.5 * log(0.5 / 0.1))
    assert kl(biased, fair)[0] == pytest.approx(0.9 * log(0.9 / 0.5) + 0.1 * log(0.1 / 0.5))


def test_what_the_reference_rules_out_adds_nothing() -> None:
    sure, unsure = np.array([[0.0, -inf]]), np.log([[0.25, 0.75]])
    assert kl(sure, unsure)[0] == pytest.approx(log(4))
    assert kl(sure, sure)[0] == 0
    assert kl(unsure, sure)[0] == inf


def test_scores_over_more_rows_than_a_block() -> None:
    n = 2 * BLOCK + 3
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(n, 4)).astype(np.float32)
    other = rng.normal(size=(n, 4)).astype(np.float32)
    came = rng.integers(0, 4, n).astype(np.int32)
    scores = Scores()
    scores.add(logits[:5], came[:5], other[:5])
    scores.add(logits[5:], came[5:], other[5:])
    ours, theirs = [*map(probabilities, logits)], [*map(probabilities, other)]
    surprise = [-log(p[int(token)]) for p, token in zip(ours, came, strict=True)]
    divergence = [
        sum(b * log(b / a) for a, b in zip(p, q, strict=True))
        for p, q in zip(ours, theirs, strict=True)
    ]
    perplexity, error = scores.perplexity()
    assert perplexity == pytest.approx(exp(sum(surprise) / n))
    assert error == pytest.approx(perplexity * standard_error(surprise))
    mean = sum(divergence) / n, standard_error(divergence)
    assert scores.mean_divergence() == pytest.approx(mean)
    same = sum(p.index(max(p)) == q.index(max(q)) for p, q in zip(ours, theirs, strict=True))
    assert scores.n_same == same


def probabilities(row: Rows) -> list[float]:
    weights = [exp(float(x)) for x in row]
    return [weight / sum(weights) for weight in weights]


def standard_error(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1) / len(values))


def test_one_row_has_no_error() -> None:
    scores = Scores()
    row = np.zeros((1, 4), np.float32)
    scores.add(row, np.array([2], np.int32), row)
    assert scores.perplexity() == pytest.approx((4.0, 0.0))
