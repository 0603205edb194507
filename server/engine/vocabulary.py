"""Vocabulary: text to tokens and back, with what llama.cpp says of each token kept."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from server.engine.batch import Tokens
from server.ipc import Text


class Tokenizer(Protocol):
    """What llama.cpp offers; the tests have one of their own."""

    n_tokens: int
    bos: int
    eos: int
    adds_bos: bool

    @property
    def pointer(self) -> Any: ...
    def is_end(self, token: int) -> bool: ...
    def is_control(self, token: int) -> bool: ...
    def text(self, token: int) -> str: ...
    def piece(self, token: int) -> bytes: ...
    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> Tokens: ...


class Vocabulary:
    """A model's tokens."""

    def __init__(self, raw: Tokenizer):
        self.raw = raw
        self.n_tokens = raw.n_tokens
        self.bos = raw.text(raw.bos)
        self.eos = raw.text(raw.eos)
        self._pieces: list[bytes | None] = [None] * raw.n_tokens

    @cached_property
    def ends(self) -> Tokens:
        """Ids of the tokens that end a generation."""
        return np.array([t for t in range(self.n_tokens) if self.raw.is_end(t)], np.int32)

    @cached_property
    def end_set(self) -> frozenset[int]:
        """The same, to look one up."""
        return frozenset(self.ends.tolist())

    @cached_property
    def special(self) -> dict[str, int]:
        """Control tokens, text -> id."""
        controls = (t for t in range(self.n_tokens) if self.raw.is_control(t))
        return {text: t for t in controls if (text := self.raw.text(t))}

    def piece(self, token: int) -> bytes:
        """The bytes that a generated token adds to the text; none for control tokens."""
        known = self._pieces[token]
        if known is None:
            known = self._pieces[token] = self.raw.piece(token)
        return known

    def tokenize(self, prompt: Text) -> Tokens:
        """Token ids of a text, with one BOS where the model wants one.

        Control tokens are recognised except in the prompt's literal ranges.
        """
        if not prompt.literal:
            return self._one_bos(
                self.raw.tokenize(prompt.text, add_special=True, parse_special=True)
            )
        bos = [self.raw.bos] if self.raw.adds_bos else []
        parts = [np.array(bos, np.int32)]
        for run in self._runs(prompt):
            if isinstance(run, int):
                parts.append(np.array([run], np.int32))
            elif run:
                parts.append(self.raw.tokenize(run, add_special=False, parse_special=False))
        return self._one_bos(np.concatenate(parts))

    def _runs(self, prompt: Text) -> Iterator[str | int]:
        """The prompt cut at its real control tokens: texts and ids."""
        begins = [begin for begin, _ in prompt.literal]
        ends = [end for _, end in prompt.literal]
        start = 0
        for match in self._pattern.finditer(prompt.text):
            after = bisect_right(ends, match.start())
            if after < len(ends) and begins[after] < match.end():
                continue
            yield prompt.text[start : match.start()]
            yield self.special[match.group()]
            start = match.end()
        yield prompt.text[start:]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.special, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def _one_bos(self, tokens: Tokens) -> Tokens:
        """Templates often write the BOS that the tokenizer adds as well."""
        doubled = len(tokens) > 1 and (tokens[:2] == self.raw.bos).all()
        return tokens[1:] if doubled and self.raw.adds_bos else tokens
