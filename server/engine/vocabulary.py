"""Vocabulary: text to tokens and back, with what llama.cpp says of each token kept."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Ids
from functools import cached_property
from itertools import compress
from typing import Any, Protocol

import numpy as np

from server.engine.batch import Tokens
from server.errors import InvalidRequest
from server.ipc import Infill, Text


class Tokenizer(Protocol):
    """What llama.cpp offers; the tests have one of their own."""

    n_tokens: int
    bos: int
    eos: int
    pad: int
    sep: int
    adds_bos: bool
    adds_eos: bool
    adds_sep: bool

    @property
    def pointer(self) -> Any: ...
    def is_end(self, token: int, /) -> bool: ...
    def is_control(self, token: int, /) -> bool: ...
    @property
    def fim(self) -> tuple[int, int, int] | None: ...
    def text(self, token: int) -> str: ...
    def piece(self, token: int, special: bool = False) -> bytes: ...
    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> Tokens: ...


class Vocabulary:
    """A model's tokens."""

    def __init__(self, raw: Tokenizer):
        self.raw = raw
        self.n_tokens = raw.n_tokens
        self.bos = raw.text(raw.bos)
        self.eos = raw.text(raw.eos)
        self.pad = raw.text(raw.pad)
        self._pieces: list[bytes | None] = [None] * raw.n_tokens

    @cached_property
    def ends(self) -> Tokens:
        """Ids of the tokens that end a generation."""
        return np.array(self._all(self.raw.is_end), np.int32)

    @cached_property
    def end_set(self) -> frozenset[int]:
        """The same, to look one up."""
        return frozenset(self.ends.tolist())

    @cached_property
    def special(self) -> dict[str, int]:
        """Control tokens, text -> id."""
        controls = self._all(self.raw.is_control)
        return {text: t for t in controls if (text := self.raw.text(t))}

    def _all(self, has: Callable[[int], bool]) -> list[int]:
        """The tokens of which it is true. There may be a quarter of a million to ask."""
        return list(compress(range(self.n_tokens), map(has, range(self.n_tokens))))

    def look_through(self) -> None:
        """Find the tokens of both kinds, which takes a while. Safe to do on any thread."""
        _ = self.ends, self.special

    def piece(self, token: int) -> bytes:
        """The bytes that a generated token adds to the text; none for control tokens."""
        known = self._pieces[token]
        if known is None:
            known = self._pieces[token] = self.raw.piece(token)
        return known

    def check(self, param: str, ids: Iterable[int]) -> None:
        """Raises InvalidRequest where an id is none of ours: llama.cpp reads past its arrays."""
        for token in ids:
            if not 0 <= token < self.n_tokens:
                raise InvalidRequest(
                    f"{param}: token {token} is not in the vocabulary of {self.n_tokens:,}", param
                )

    def spell(self, tokens: Ids[int]) -> tuple[bytes, ...]:
        """What each token is in a text, control tokens written out."""
        return tuple(self.raw.piece(token, special=True) for token in tokens)

    def infill(self, prompt: Infill) -> Tokens:
        """Token ids that ask for what is missing between two texts. Raises InvalidRequest."""
        if self.raw.fim is None:
            raise InvalidRequest(
                "suffix: the model has no tokens for filling in the middle", param="suffix"
            )
        bos = [self.raw.bos] if self.raw.adds_bos else []
        before, after, middle = self.raw.fim
        prefix, suffix = (
            self.raw.tokenize(text, add_special=False, parse_special=False)
            for text in (prompt.prefix, prompt.suffix)
        )
        return np.concatenate([[*bos, before], prefix, [after], suffix, [middle]]).astype(np.int32)

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
