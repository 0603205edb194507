"""What names of GGUF files say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.filenames import Part, family_of, part_name, part_of, quant_in


@pytest.mark.parametrize(
    ("stem", "family", "quant"),
    [
        ("bagel-dpo-8x7b-v0.2.Q4_K_M", "bagel-dpo-8x7b-v0.2", "Q4_K_M"),
        ("bagel-dpo-8x7b-v0.2.Q4_0", "bagel-dpo-8x7b-v0.2", "Q4_0"),
        ("Qwen3-8B-UD-Q4_K_XL", "Qwen3-8B", "UD-Q4_K_XL"),
        ("Qwen3-8B-UD-IQ2_XXS", "Qwen3-8B", "UD-IQ2_XXS"),
        ("phi-3-mini-q4", "phi-3-mini", "Q4"),
        ("model-q8_0", "model", "Q8_0"),
        ("model-Q4_0_4_8", "model", "Q4_0_4_8"),
        ("model_IQ4_XS", "model", "IQ4_XS"),
        ("model.TQ1_0", "model", "TQ1_0"),
        ("model-MXFP4_MOE", "model", "MXFP4_MOE"),
        ("model-BF16", "model", "BF16"),
        ("model.fp16", "model", "FP16"),
        ("model-Q4_K_M-imat", "model-imat", "Q4_K_M"),
        ("f16-to-Q4_0_v2", "f16-to_v2", "Q4_0"),
        ("Q4_K_M", "Q4_K_M", "Q4_K_M"),
        ("FAQ4_0", "FAQ4_0", ""),
        ("q4model", "q4model", ""),
        ("llama-3-8b", "llama-3-8b", ""),
        ("model", "model", ""),
    ],
)
def test_a_quant_is_told_from_the_rest(stem: str, family: str, quant: str) -> None:
    assert (family_of(stem), quant_in(stem)) == (family, quant)


def test_a_folder_may_say_the_quant() -> None:
    assert quant_in("IQ4_NL/a-00001-of-00002.gguf") == "IQ4_NL"


@pytest.mark.parametrize(
    ("stem", "part"),
    [
        ("m.Q8_0-00002-of-00006", Part("m.Q8_0", 2, 6)),
        ("m-2-of-6", Part("m-2-of-6", 1, 1)),
        ("-00002-of-00006", Part("-00002-of-00006", 1, 1)),
        ("m-00002-of-00006-v2", Part("m-00002-of-00006-v2", 1, 1)),
        ("m-00002-of-00006\n", Part("m-00002-of-00006\n", 1, 1)),
    ],
)
def test_a_part_is_told_from_a_whole(stem: str, part: Part) -> None:
    assert part_of(stem) == part


@given(st.text(min_size=1), st.integers(1, 99999), st.integers(1, 99999))
def test_a_part_is_known_by_its_name(stem: str, number: int, count: int) -> None:
    name = part_name(stem, number, count)
    assert part_of(name.removesuffix(".gguf")) == (stem, number, count)


@given(st.text())
def test_any_name_is_read(name: str) -> None:
    assert quant_in(name) in name.upper()
    assert family_of(name) or not name
