"""What models are called: quants at the end of names, and who is meant."""

from pathlib import Path

import pytest

from server.pool.names import Names, family_of, quant_in
from server.pool.scan import Found


@pytest.mark.parametrize(
    ("stem", "family", "quant"),
    [
        ("bagel-dpo-8x7b-v0.2.Q4_K_M", "bagel-dpo-8x7b-v0.2", "Q4_K_M"),
        ("bagel-dpo-8x7b-v0.2.Q4_0", "bagel-dpo-8x7b-v0.2", "Q4_0"),
        ("Qwen3-8B-UD-Q4_K_XL", "Qwen3-8B", "UD-Q4_K_XL"),
        ("model-q8_0", "model", "Q8_0"),
        ("model_IQ4_XS", "model", "IQ4_XS"),
        ("model.TQ1_0", "model", "TQ1_0"),
        ("model-MXFP4_MOE", "model", "MXFP4_MOE"),
        ("model-BF16", "model", "BF16"),
        ("model.fp16", "model", "FP16"),
        ("Q4_K_M", "Q4_K_M", ""),
        ("FAQ4_0", "FAQ4_0", ""),
        ("model-Q4_K_M-imat", "model-Q4_K_M-imat", ""),
        ("model", "model", ""),
    ],
)
def test_a_quant_ends_a_name(stem: str, family: str, quant: str) -> None:
    assert (family_of(stem), quant_in(stem)) == (family, quant)


def found(name: str) -> Found:
    *repo, stem = name.split("/")
    return Found(stem, ("m", *repo), tuple(repo), (Path("m", f"{name}.gguf"),))


NAMES = Names(
    [
        ("mine", found("Bagel.Q4_K_M"), "Q4_K_M"),
        ("org/A.Q8_0", found("org/Model-GGUF/A.Q8_0"), "Q8_0"),
        ("two/A.Q8_0", found("two/Model-GGUF/A.Q8_0"), "Q8_0"),
        ("A-UD-Q4_K_XL", found("org/Model-GGUF/A-UD-Q4_K_XL"), "Q4_K_M"),
        ("A.Q4_K_M", found("org/Model-GGUF/A.Q4_K_M"), "Q4_K_M"),
        ("plain", found("org/Plain-gguf/plain"), "F16"),
    ]
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MINE", ["mine"]),
        ("bagel.q4_k_m", ["mine"]),
        ("Bagel.Q4_K_M.gguf", ["mine"]),
        ("bagel", ["mine"]),
        ("bagel:Q4_K_M", ["mine"]),
        ("bagel:Q8_0", []),
        ("A.Q8_0", ["org/A.Q8_0", "two/A.Q8_0"]),
        ("Model-GGUF/A.Q8_0", ["org/A.Q8_0", "two/A.Q8_0"]),
        ("two/Model-GGUF/A.Q8_0", ["two/A.Q8_0"]),
        ("org/Model-GGUF:Q8_0", ["org/A.Q8_0"]),
        ("ORG/model:q8_0", ["org/A.Q8_0"]),
        ("Model-GGUF:Q8_0", ["org/A.Q8_0", "two/A.Q8_0"]),
        ("org/Model-GGUF:Q4_K_M", ["A.Q4_K_M"]),
        ("org/Model-GGUF:UD-Q4_K_XL", ["A-UD-Q4_K_XL"]),
        ("org/Model-GGUF", ["org/A.Q8_0", "A-UD-Q4_K_XL", "A.Q4_K_M"]),
        ("org/Plain", ["plain"]),
        ("org/Plain:f16", ["plain"]),
        ("org", []),
        ("m", []),
        ("", []),
        (":", []),
        (":Q8_0", []),
        ("Model:", []),
    ],
)
def test_who_is_meant(name: str, meant: list[str]) -> None:
    assert NAMES.meant(name) == meant
