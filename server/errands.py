"""What the processes that make and measure quants are told, and what they report. No methods."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fallback:
    """Tensors whose rows of `n_columns` do not divide into the blocks of the wanted type."""

    n_columns: int
    wanted: str
    made: str
    n_tensors: int


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quant that was made, or would be."""

    n_bytes: int
    """Of its weights, to 10 KiB for each tensor."""
    source_bytes: int
    """Of the weights it is made from."""
    bits_per_weight: float
    n_tensors: int
    requantized: tuple[str, ...]
    """Types of already quantized tensors that are quantized again."""
    fallbacks: tuple[Fallback, ...]
    needs_matrix: bool
    """It cannot be made without an importance matrix."""


@dataclass(frozen=True, slots=True)
class Quantize:
    """Write the quant of `source` to `target`; without a plan, only say what it would be."""

    source: str
    quant: str
    target: str
    n_threads: int | None
    requantize: bool
    """Whether already quantized tensors may be quantized again."""
    plan: Quantized | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on a text. Errors are standard errors."""

    tokens: tuple[int, ...]
    """Of the text, as far as they were used."""
    n_scored: int
    perplexity: float
    perplexity_error: float
    divergence: float
    """Mean KL divergence from the reference, in nats per token; 0 for the reference itself."""
    divergence_error: float
    same_best: float
    """Share of the tokens for which both models find the same token most likely."""
    prefill: float
    decode: float
    """Tokens per second, of a prompt and of one stream."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Compare the model at `path` with the reference on a text, in pieces of `n_ctx` tokens."""

    path: str
    text: str
    n_ctx: int
    n_pieces: int | None
    """At most that many; None: the whole text."""
    n_threads: int | None
    logits: str
    """File of the reference's logits, [n_scored, n_vocab] of float32."""
    reference: Measured | None
    """None if this is the reference, which writes that file."""


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a job has come, in its own unit."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A job that cannot be done."""

    reason: str
