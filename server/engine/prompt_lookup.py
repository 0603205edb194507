"""Prompt lookup: how a text may go on, from how it went on before.

The idea is that of prompt lookup decoding: what follows the last occurrence of the last two tokens
is a draft of the next ones, which one forward can check at once. It pays where an answer quotes
its prompt or repeats itself, and costs elsewhere. So here every next token is guessed, drafted or
not, and a draft is as long as the guesses have been right in a row: a text that goes its own way
never has one.
"""

from itertools import count, pairwise

MIN_RIGHT = 3
"""Right guesses in a row before a draft is worth its forward."""


class PromptLookup:
    """Guesses the next tokens of one sequence, from all of its own."""

    def __init__(self, tokens: list[int]):
        """`tokens`: the prompt, at least one; it becomes this object's own."""
        last = tokens.pop()
        self._tokens = tokens
        self._after = dict(zip(pairwise(tokens), count(2), strict=False))
        """Where the token is that came after the last occurrence of a pair."""
        self._guess: int | None = None
        """Where the token is that should come next."""
        self._n_right = 0
        self.take(last)

    @property
    def n_sure(self) -> int:
        """Tokens that a draft should have."""
        return self._n_right if self._n_right >= MIN_RIGHT else 0

    def draft(self, n: int) -> list[int]:
        """The next `n` tokens as they may be. Only where `n_sure` is not 0."""
        assert self._guess is not None
        known = self._tokens[self._guess : self._guess + n]
        # Where the text has not gone on for so long, it repeats what it did so far.
        return [known[i % len(known)] for i in range(n)]

    def take(self, token: int) -> None:
        """Compare the next token with the guess, and guess the one after it."""
        tokens = self._tokens
        if self._guess is not None and tokens[self._guess] == token:
            self._guess += 1
            self._n_right += 1
        else:
            self._guess = None
            self._n_right = 0
        pair = (tokens[-1] if tokens else -1, token)
        tokens.append(token)
        if self._guess is None:
            self._guess = self._after.get(pair)
        self._after[pair] = len(tokens)
