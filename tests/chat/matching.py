"""Lark grammars put to the test: llguidance over a tokenizer of bytes and control tokens."""

import re
from collections.abc import Sequence
from functools import lru_cache

from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

N_BYTES = 256


class _Bytes:
    """A vocabulary of the 256 bytes, control tokens from id 256 on, and an end token."""

    def __init__(self, control: Sequence[str]):
        texts = [text.encode() for text in (*control, "<end>")]
        self.tokens = [*(bytes([i]) for i in range(N_BYTES)), *texts]
        self.special_token_ids = list(range(N_BYTES, len(self.tokens)))
        self.eos_token_id = len(self.tokens) - 1
        self.bos_token_id = None

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@lru_cache
def _tokenizer(control: tuple[str, ...]) -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes(control)))  # pyright: ignore[reportArgumentType]


def token_ids(control: Sequence[str]) -> dict[str, int | None]:
    return {text: N_BYTES + i for i, text in enumerate(control)}


def accepts(lark: str, text: str, control: Sequence[str] = ()) -> bool:
    """Whether `text` is a whole answer by this grammar, `control` texts being control tokens.

    Raises ValueError where llguidance refuses the grammar.
    """
    grammar = LLMatcher.grammar_from_lark(lark)
    matcher = LLMatcher(_tokenizer(tuple(control)), grammar, log_level=0)
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    ids: list[int] = []
    pattern = "|".join(map(re.escape, control)) or "(?!)"
    for part in re.split(f"({pattern})", text):
        known = token_ids(control).get(part)
        ids += [known] if known is not None else list(part.encode())
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()
