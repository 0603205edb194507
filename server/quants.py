"""The quants: what llama.cpp makes, and what each is good for."""

import re

NAMES = (
    "F32", "BF16", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS",
    "IQ3_XXS", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "TQ2_0", "TQ1_0", "IQ1_M",
    "IQ1_S",
)  # fmt: skip
"""The quants that llama.cpp makes, large ones first."""

ALIASES = {"Q5_K": "Q5_K_M", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M"}

UNQUANTIZED = frozenset({"F32", "BF16", "F16", "FP32", "FP16"})
"""As files are called that hold the weights as they were trained."""

USE_CASES = {
    "Q2_K": "smallest, significant quality loss - not recommended for most purposes",
    "Q3_K_S": "very small, high quality loss",
    "Q3_K_M": "very small, high quality loss",
    "Q3_K_L": "small, substantial quality loss",
    "Q4_0": "legacy; small, very high quality loss - prefer using Q3_K_M",
    "Q4_K_S": "small, greater quality loss",
    "Q4_K_M": "medium, balanced quality - recommended",
    "Q5_0": "legacy; medium, balanced quality - prefer using Q4_K_M",
    "Q5_K_S": "large, low quality loss - recommended",
    "Q5_K_M": "large, very low quality loss - recommended",
    "Q6_K": "very large, extremely low quality loss",
    "Q8_0": "very large, extremely low quality loss - not recommended",
}
"""Of those that have one, as the cards of quantized models say it."""


def bits_of(quant: str) -> int | None:
    """The number in a quant's name: 4 of `Q4_K_M`; None if it has none."""
    number = re.search(r"\d+", quant)
    return int(number[0]) if number else None
