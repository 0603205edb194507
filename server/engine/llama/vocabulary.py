"""RawVocabulary: llama.cpp's tokenizer."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from server.engine.batch import Tokens
from server.engine.llama.backend import C
from server.errors import EngineError


class RawVocabulary:
    """The tokenizer of an open model. Safe to use from any thread."""

    def __init__(self, model: Any):
        self._pointer: Any = C.llama_model_get_vocab(model)
        self.n_tokens: int = C.llama_vocab_n_tokens(self._pointer)
        self.bos: int = C.llama_vocab_bos(self._pointer)
        self.eos: int = C.llama_vocab_eos(self._pointer)
        self.pad: int = C.llama_vocab_pad(self._pointer)
        self.sep: int = C.llama_vocab_sep(self._pointer)
        self.adds_bos: bool = C.llama_vocab_get_add_bos(self._pointer)
        self.adds_eos: bool = C.llama_vocab_get_add_eos(self._pointer)
        self.adds_sep: bool = C.llama_vocab_get_add_sep(self._pointer)
        # Asked of every token at each load, so that no line of Python is run for one.
        self.is_end: Callable[[int], bool] = partial(C.llama_vocab_is_eog, self._pointer)
        """Whether the token ends a generation."""
        self.is_control: Callable[[int], bool] = partial(C.llama_vocab_is_control, self._pointer)
        """Whether the token steers the model and is no text."""

    @property
    def pointer(self) -> Any:
        """For samplers that look at texts."""
        return self._pointer

    @property
    def fim(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, a suffix and the middle; None if the model has them not."""
        tokens = (
            C.llama_vocab_fim_pre(self._pointer),
            C.llama_vocab_fim_suf(self._pointer),
            C.llama_vocab_fim_mid(self._pointer),
        )
        return tokens if min(tokens) >= 0 else None

    def text(self, token: int) -> str:
        """The token as it stands in the vocabulary; empty for -1, which is no token."""
        if token < 0:
            return ""
        return C.llama_vocab_get_text(self._pointer, token).decode(errors="replace")

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes that a token adds to a text; none for control tokens if not `special`."""
        buffer = ctypes.create_string_buffer(64)
        n = C.llama_token_to_piece(self._pointer, token, buffer, len(buffer), 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = C.llama_token_to_piece(self._pointer, token, buffer, -n, 0, special)
        return buffer.raw[:n]

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> Tokens:
        """Token ids of a text; BOS is added, and control tokens are recognised, if asked."""
        raw = text.encode(errors="replace")
        tokens = np.empty(len(raw) + 8, np.int32)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(C.llama_token))
        n = C.llama_tokenize(
            self._pointer, raw, len(raw), pointer, len(tokens), add_special, parse_special
        )
        if n < 0:
            raise EngineError(f"llama.cpp cannot tokenize {len(raw)} bytes (code {n})")
        return tokens[:n]
