"""How good predictions are: surprise at a text, and divergence from what another model says."""

from dataclasses import dataclass, field
from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

from server.engine.batch import Tokens

Rows = NDArray[np.float32]
Doubles = NDArray[np.float64]

BLOCK = 32
"""Rows computed at once: float64 of a whole piece would take gigabytes."""


def log_softmax(logits: Rows) -> Doubles:
    """Logarithms of the probabilities, [n_rows, n_vocab], of logits of that shape."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def kl(p: Doubles, q: Doubles) -> Doubles:
    """KL(p || q) of each row in nats, [n_rows], of log-probabilities [n_rows, n_vocab]."""
    with np.errstate(invalid="ignore"):
        terms = np.exp(p) * (p - q)
    # A token that p rules out adds nothing, whatever q says.
    return np.where(np.isneginf(p), 0.0, terms).sum(axis=1)


@dataclass(slots=True)
class Scores:
    """Sums over the rows seen so far."""

    surprise: list[Doubles] = field(default_factory=list[Doubles])
    divergence: list[Doubles] = field(default_factory=list[Doubles])
    n_same: int = 0

    def add(self, logits: Rows, tokens: Tokens, reference: Rows) -> None:
        """Rows [n, n_vocab] of a model and of the reference, and the n tokens that came."""
        for start in range(0, len(tokens), BLOCK):
            rows = slice(start, start + BLOCK)
            ours, theirs = log_softmax(logits[rows]), log_softmax(reference[rows])
            came = tokens[rows]
            self.surprise.append(-ours[np.arange(len(came)), came])
            self.divergence.append(kl(theirs, ours))
            self.n_same += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())

    def perplexity(self) -> tuple[float, float]:
        """Perplexity and its standard error."""
        mean, error = _mean(np.concatenate(self.surprise))
        return exp(mean), exp(mean) * error

    def mean_divergence(self) -> tuple[float, float]:
        """Mean KL divergence and its standard error, in nats."""
        return _mean(np.concatenate(self.divergence))


def _mean(values: Doubles) -> tuple[float, float]:
    error = float(values.std(ddof=1)) / sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), error
