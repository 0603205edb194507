"""Who is meant by a name."""

from pathlib import Path

import pytest

from server.pool.names import Names
from server.pool.scan import Found


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
