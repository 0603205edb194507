"""SamplingParams: every sampling parameter, shared by wire, config and engine."""

import math
from collections.abc import Mapping
from typing import Annotated, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

ALIASES = {
    "repetition_penalty": "repeat_penalty",
    "typical": "typical_p",
    "penalty_last_n": "repeat_last_n",
    "min_new_tokens": "min_tokens",
}
"""Names that other servers give to the same parameter."""

BANNED = -100.0
"""A bias at or below this bans the token, as OpenAI documents; `false` says the same."""

INT_MAX = 2**31 - 1
"""llama.cpp's int; ctypes would cut off a larger one without a word."""


def _read_pairs(value: object) -> object:
    """Take `{"15": -1.5, "16": false}` for llama-server's `[[15, -1.5], [16, false]]`."""
    if isinstance(value, Mapping):
        return tuple(cast("Mapping[object, object]", value).items())
    return value


def _read_false(bias: object) -> object:
    """`false` bans; true would pass for 1."""
    if bias is True:
        raise ValueError("a bias is a number, or false to ban the token")
    return -math.inf if bias is False else bias


def _read_bias(bias: float) -> float:
    """A finite bias, or minus infinity for a ban."""
    if bias <= BANNED:
        return -math.inf
    if not math.isfinite(bias):
        raise ValueError("a bias is a finite number, or false to ban the token")
    return bias


TokenId = Annotated[int, Field(ge=0, le=INT_MAX)]
Bias = Annotated[
    float, Field(allow_inf_nan=True), BeforeValidator(_read_false), AfterValidator(_read_bias)
]


class SamplingParams(BaseModel):
    """How the next token is chosen. The order of the stages is in `engine/sampler.py`."""

    # Workers get theirs made, and never need what checks them.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    temperature: float = Field(
        default=1.0, ge=0, le=100, description="randomness; 0 takes the best token"
    )
    dynatemp_range: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="temperature varies by this much with the entropy; 0 is off",
    )
    dynatemp_exponent: float = Field(
        default=1.0, ge=0, le=100, description="how entropy maps to it"
    )
    top_k: int = Field(
        default=40, ge=-1, le=INT_MAX, description="keep the k best tokens; 0 or -1 keeps all"
    )
    top_p: float = Field(
        default=1.0, ge=0, le=1, description="keep the best tokens of this joint mass"
    )
    min_p: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="drop tokens below this share of the best one's probability",
    )
    typical_p: float = Field(
        default=1.0, gt=0, le=1, description="locally typical sampling; 1 is off"
    )
    top_n_sigma: float = Field(
        default=-1.0,
        ge=-1,
        description="keep logits within n standard deviations of the best; -1 is off",
    )
    xtc_probability: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="chance to drop all but the least likely of the likely tokens",
    )
    xtc_threshold: float = Field(default=0.1, ge=0, le=1, description="what likely means to XTC")
    mirostat: int = Field(default=0, ge=0, le=2, description="Mirostat version; 0 is off")
    mirostat_tau: float = Field(default=5.0, ge=0, description="Mirostat's target surprise")
    mirostat_eta: float = Field(default=0.1, ge=0, description="Mirostat's learning rate")
    adaptive_target: float = Field(
        default=-1.0,
        ge=-1,
        le=1,
        description="adaptive-p: favour tokens near this probability; < 0 is off",
    )
    adaptive_decay: float = Field(
        default=0.9, ge=0, le=0.99, description="adaptive-p: memory of the mean"
    )
    dry_multiplier: float = Field(
        default=0.0, ge=0, description="DRY penalty for repeats; 0 is off"
    )
    dry_base: float = Field(
        default=1.75, ge=1, description="growth of the DRY penalty with the length"
    )
    dry_allowed_length: int = Field(
        default=2, ge=0, le=INT_MAX, description="longest repeat that DRY leaves alone"
    )
    dry_penalty_last_n: int = Field(
        default=-1, ge=-1, le=INT_MAX, description="tokens DRY looks at; -1 is all"
    )
    dry_sequence_breakers: tuple[str, ...] = Field(
        default=("\n", ":", '"', "*"), max_length=64, description="strings that end a repeat"
    )
    repeat_penalty: float = Field(
        default=1.0, gt=0, le=100, description="divides repeated tokens' logits"
    )
    repeat_last_n: int = Field(
        default=64,
        ge=-1,
        le=INT_MAX,
        description="tokens (prompt included) that penalties look at; -1 is all",
    )
    presence_penalty: float = Field(default=0.0, ge=-2, le=2, description="once per token seen")
    frequency_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="times the token was seen"
    )
    logit_bias: Annotated[tuple[tuple[TokenId, Bias], ...], BeforeValidator(_read_pairs)] = Field(
        default=(), max_length=1024, description="added to tokens' logits; false bans a token"
    )
    seed: int | None = Field(default=None, description="same seed, same answer; null draws one")
    ignore_eos: bool = Field(default=False, description="never end before max_tokens")
    min_tokens: int = Field(
        default=0, ge=0, le=INT_MAX, description="do not end before this many tokens"
    )
