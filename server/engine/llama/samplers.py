"""Chain: llama.cpp's samplers, one after another."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.engine.llama.backend import C

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""


class Chain:
    """A sampler chain over the stages given, freed with them."""

    def __init__(self, stages: list[Any]):
        self._pointer: Any = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        for stage in stages:
            # A stage that could not be made is a null pointer, which the chain would follow.
            assert stage, "llama.cpp made no sampler"
            C.llama_sampler_chain_add(self._pointer, stage)

    def __del__(self) -> None:
        if self._pointer:
            C.llama_sampler_free(self._pointer)
            self._pointer = None

    def pick(self, candidates: NDArray[Any]) -> int:
        """Choose one of the candidates (of type CANDIDATE, reordered in place) and accept it."""
        array = C.llama_token_data_array(
            data=candidates.ctypes.data_as(C.llama_token_data_p),
            size=len(candidates),
            selected=-1,
            sorted=False,
        )
        C.llama_sampler_apply(self._pointer, ctypes.byref(array))
        token = array.data[array.selected].id
        C.llama_sampler_accept(self._pointer, token)
        return token

    def accept(self, token: int) -> None:
        """Take note of a token that was not chosen here, such as the prompt's."""
        C.llama_sampler_accept(self._pointer, token)


def dry(
    vocabulary: Any,
    multiplier: float,
    base: float,
    allowed_length: int,
    last_n: int,
    breakers: tuple[str, ...],
) -> Any:
    """The DRY sampler; `vocabulary` is a RawVocabulary's pointer, `last_n` counts tokens."""
    texts = (ctypes.c_char_p * len(breakers))(*(text.encode(errors="replace") for text in breakers))
    return C.llama_sampler_init_dry(
        vocabulary, multiplier, base, allowed_length, last_n, texts, len(breakers)
    )


def mirostat(n_vocab: int, seed: int, tau: float, eta: float) -> Any:
    """Mirostat 1, with the 100 tokens of its paper for the estimate."""
    return C.llama_sampler_init_mirostat(n_vocab, seed, tau, eta, 100)


def top_p(p: float) -> Any:
    """Nucleus sampling."""
    return C.llama_sampler_init_top_p(p, 1)


def min_p(p: float) -> Any:
    """Drop what is below this share of the best."""
    return C.llama_sampler_init_min_p(p, 1)


def typical(p: float) -> Any:
    """Locally typical sampling."""
    return C.llama_sampler_init_typical(p, 1)


def xtc(probability: float, threshold: float, seed: int) -> Any:
    """Exclude top choices."""
    return C.llama_sampler_init_xtc(probability, threshold, 1, seed)


greedy = C.llama_sampler_init_greedy
top_k = C.llama_sampler_init_top_k
top_n_sigma = C.llama_sampler_init_top_n_sigma
temperature = C.llama_sampler_init_temp
dynamic_temperature = C.llama_sampler_init_temp_ext
mirostat_v2 = C.llama_sampler_init_mirostat_v2
adaptive_p = C.llama_sampler_init_adaptive_p
draw = C.llama_sampler_init_dist
