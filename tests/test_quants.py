"""What is known of each quant."""

import pytest

from server.filenames import family_of, quant_in
from server.quants import ALIASES, NAMES, UNQUANTIZED, USE_CASES, bits_of


@pytest.mark.parametrize("quant", [*NAMES, *ALIASES, *sorted(UNQUANTIZED)])
def test_each_is_found_in_names_of_files(quant: str) -> None:
    for stem in (f"model.{quant}", f"model-{quant.lower()}"):
        assert (family_of(stem), quant_in(stem)) == ("model", quant)


def test_what_is_said_is_said_of_quants() -> None:
    assert USE_CASES.keys() | set(ALIASES.values()) <= set(NAMES)


@pytest.mark.parametrize(
    ("quant", "bits"),
    [("Q4_K_M", 4), ("Q8_0", 8), ("UD-IQ2_XXS", 2), ("BF16", 16), ("TQ1_0", 1), ("", None)],
)
def test_the_name_says_the_bits(quant: str, bits: int | None) -> None:
    assert bits_of(quant) == bits
