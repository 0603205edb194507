"""llama.cpp asked directly: one sequence, all its logits."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from tests.e2e.process import N_THREADS

N_CTX = 512

api: Any = llama_cpp
"""Its types are those of ctypes."""


class Likelihood(NamedTuple):
    """How likely some tokens are after others."""

    sum: float
    """Of natural logarithms."""
    n_tokens: int
    is_greedy: bool
    """Whether each is the likeliest in its place."""


class Forward:
    """A model and one context of one sequence; closed at the end of a `with`."""

    def __init__(self, path: Path):
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = False
        self._model = api.llama_model_load_from_file(str(path).encode(), params)
        self._vocabulary = api.llama_model_get_vocab(self._model)
        self._n_vocab: int = api.llama_vocab_n_tokens(self._vocabulary)
        params = api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = N_CTX
        params.n_threads = params.n_threads_batch = N_THREADS
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = api.llama_init_from_model(self._model, params)

    def __enter__(self) -> "Forward":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        api.llama_free(self._context)
        api.llama_model_free(self._model)

    def continuation(self, context: str, continuation: str) -> Likelihood:
        """How likely a text is after another, cut into tokens as the harness does it."""
        n_spaces = len(context) - len(context.rstrip())
        if n_spaces:
            continuation = context[-n_spaces:] + continuation
            context = context[:-n_spaces]
        return self._likelihood(self.tokens(context + continuation), len(self.tokens(context)))

    def text(self, text: str) -> Likelihood:
        """How likely a text is after the token that the harness puts before it."""
        return self._likelihood([api.llama_vocab_bos(self._vocabulary), *self.tokens(text)], 1)

    def greedy(self, prompt: str, n: int) -> str:
        """The `n` likeliest tokens after a text, fewer where it ends.

        One decode for each: llama.cpp's kernels for one row do not round as those for many.
        """
        said: list[int] = []
        tokens = self.tokens(prompt)
        rows = self._logprobs(tokens)
        while len(said) < n:
            token = int(rows[-1].argmax())
            if api.llama_vocab_is_eog(self._vocabulary, token):
                break
            rows = self._logprobs([token], len(tokens) + len(said))
            said.append(token)
        return self._bytes(said).decode(errors="ignore")

    def tokens(self, text: str) -> list[int]:
        """A text's tokens, with nothing added."""
        raw = text.encode()
        buffer = (api.llama_token * (len(raw) + 8))()
        n = api.llama_tokenize(self._vocabulary, raw, len(raw), buffer, len(buffer), False, True)
        assert n > 0
        return [*buffer[:n]]

    def _likelihood(self, tokens: Sequence[int], n_context: int) -> Likelihood:
        rows = self._logprobs(tokens)[n_context - 1 : -1]
        wanted = [*tokens[n_context:]]
        own = rows[np.arange(len(wanted)), wanted]
        return Likelihood(float(own.sum()), len(wanted), bool((rows.argmax(1) == wanted).all()))

    def _logprobs(self, tokens: Sequence[int], n_past: int = 0) -> NDArray[np.float64]:
        """[n_tokens, n_vocab]: of what follows each token, after `n_past` that came before."""
        if n_past == 0:
            api.llama_memory_clear(api.llama_get_memory(self._context), True)
        batch = api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, n_past + i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert api.llama_decode(self._context, batch) == 0
        api.llama_batch_free(batch)
        pointer = api.llama_get_logits(self._context)
        logits = np.ctypeslib.as_array(pointer, (len(tokens), self._n_vocab)).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def _bytes(self, tokens: Sequence[int]) -> bytes:
        pieces: list[bytes] = []
        for token in tokens:
            buffer = ctypes.create_string_buffer(256)
            n = api.llama_token_to_piece(self._vocabulary, token, buffer, 256, 0, False)
            pieces.append(buffer.raw[:n])
        return b"".join(pieces)
