"""Scores: how likely the model found a token, by its own distribution, before anything samples."""

from collections import deque

import numpy as np

from server.engine.llama import Logits
from server.engine.sampler import candidates
from server.engine.vocabulary import Vocabulary
from server.ipc import TokenScore


def score(logits: Logits, token: int, n_top: int, vocabulary: Vocabulary) -> TokenScore:
    """The score of `token` in one row of logits, [n_vocab], with the `n_top` best tokens."""
    peak = logits.max()
    total = float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    top: list[tuple[int, bytes, float]] = []
    if n_top:
        best = candidates(logits, n_top)
        order = np.lexsort((best["id"], -best["logit"]))[:n_top]
        top = [
            (id, vocabulary.piece(id), logit - total)
            for id, logit in zip(
                best["id"][order].tolist(), best["logit"][order].tolist(), strict=True
            )
        ]
    return TokenScore(token, vocabulary.piece(token), float(logits[token]) - total, tuple(top))


def unscored(tokens: list[int], vocabulary: Vocabulary) -> list[TokenScore]:
    """Prompt tokens that were not predicted, or of which nobody wants to know how well."""
    pieces = vocabulary.spell(tokens)
    return [TokenScore(token, piece, None) for token, piece in zip(tokens, pieces, strict=True)]


class ScoreQueue:
    """Scores that wait for their tokens' text, which may be held back or dropped."""

    def __init__(self, may_stop: bool):
        self._may_stop = may_stop
        """There are stop strings: text may be cut."""
        self._held: deque[TokenScore] = deque()
        self._n_sent = 0
        """Bytes of text that were sent of what is held here."""

    def add(self, score: TokenScore) -> None:
        """Take the next token's score."""
        self._held.append(score)

    def take(self, text: str) -> tuple[TokenScore, ...]:
        """`text` is sent: the scores of the tokens that are wholly in what was sent."""
        if not self._may_stop:
            return self._all()
        self._n_sent += len(text.encode())
        taken: list[TokenScore] = []
        while self._held and len(self._held[0].piece) <= self._n_sent:
            taken.append(self._held.popleft())
            self._n_sent -= len(taken[-1].piece)
        return tuple(taken)

    def finish(self, text: str, stopped: bool) -> tuple[TokenScore, ...]:
        """`text` is the last; after a stop string, tokens that lie behind it are left out."""
        if not stopped:
            return self._all()
        taken = list(self.take(text))
        if self._n_sent and self._held:
            taken.append(self._held.popleft())
        return tuple(taken)

    def _all(self) -> tuple[TokenScore, ...]:
        held = tuple(self._held)
        self._held.clear()
        return held
