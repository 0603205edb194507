"""What a repository offers, by names and sizes alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequest, PullError
from server.pool.offers import GiB, RemoteFile, Room, best, group, listed, select, shown

SIZES = {
    "Q2_K": 17.3,
    "Q3_K_M": 22.5,
    "Q4_0": 26.4,
    "Q4_K_M": 28.4,
    "Q5_K_M": 33.2,
    "Q6_K": 38.4,
    "Q8_0": 49.6,
    "F16": 93.0,
}
"""Of an 8x7b, in GB."""


def remote(*paths: str, size: int = 10) -> list[RemoteFile]:
    return [RemoteFile(path, size, "d" * 64) for path in paths]


MIXTRAL = group(
    RemoteFile(f"mix-8x7b.{quant}.gguf", int(size * 1e9), "d" * 64) for quant, size in SIZES.items()
)


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("bagel-dpo-8x7b-v0.2.Q4_K_M.gguf", "Q4_K_M"),
        ("model-q8_0.gguf", "Q8_0"),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("a-IQ2_XXS.gguf", "IQ2_XXS"),
        ("IQ4_NL/a-00001-of-00002.gguf", "IQ4_NL"),
        ("f16-to-Q4_0_v2.gguf", "Q4_0"),
        ("x-BF16.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("x-TQ1_0.gguf", "TQ1_0"),
        ("llama-3-8b.gguf", ""),
        ("q4model.gguf", ""),
    ],
)
def test_a_name_says_the_quant(path: str, quant: str) -> None:
    (offer,) = group(remote(path))
    assert offer.quant == quant


def test_parts_are_one_offer_and_other_files_are_none() -> None:
    parts = remote("Q8_0/m-00002-of-00002.gguf", "Q8_0/m-00001-of-00002.gguf", size=7)
    (whole,) = group([*parts, *remote("README.md", "m.safetensors")])
    assert (whole.id, whole.path, whole.size, whole.n_parts) == ("m", "Q8_0/m", 14, 2)
    assert [file.name for file in whole.files] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("mix-8x7b.Q4_K_M.gguf", ["mix-8x7b.Q4_K_M"]),
        ("mix-8x7b.Q4_K_M", ["mix-8x7b.Q4_K_M"]),
        (":q4_k_m", ["mix-8x7b.Q4_K_M"]),
        ("Q6_K", ["mix-8x7b.Q6_K"]),
        ("*Q4_K*gguf", ["mix-8x7b.Q4_K_M"]),
        ("*q[45]_K*", ["mix-8x7b.Q4_K_M", "mix-8x7b.Q5_K_M"]),
    ],
)
def test_one_may_name_a_file_a_quant_or_a_pattern(wanted: str, ids: list[str]) -> None:
    assert [offer.id for offer in select(MIXTRAL, wanted).offers] == ids


def test_a_part_names_the_whole_and_a_pattern_too() -> None:
    found = group(remote("Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf"))
    for wanted in ("m-00002-of-00002.gguf", "Q8_0/m-00001-of-00002.gguf", "*00001*", "q8_0/*", "m"):
        assert select(found, wanted).offers == tuple(found)


@pytest.mark.parametrize("wanted", [":Q4_1", "none.gguf", "*Q9*", ":"])
def test_no_match_lists_what_there_is(wanted: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        select(MIXTRAL, wanted)
    assert f"nothing matches {wanted}; there is mix-8x7b.Q2_K (16.1 GiB)" in caught.value.message
    assert "mix-8x7b.F16" in caught.value.message


def test_two_of_a_quant_are_not_guessed_at() -> None:
    with pytest.raises(InvalidRequest, match=r":Q8_0 is any of a-Q8_0 .*, b-Q8_0 .*; name"):
        select(group(remote("a-Q8_0.gguf", "b-Q8_0.gguf")), ":Q8_0")


def test_a_path_goes_before_a_name() -> None:
    found = group(remote("m.gguf", "old/m.gguf"))
    assert [offer.path for offer in select(found, "m.gguf").offers] == ["m"]


def test_a_missing_part_is_told_and_never_chosen() -> None:
    found = group(remote("m-Q4_K_M-00001-of-00003.gguf", "m-Q4_K_M-00003-of-00003.gguf"))
    with pytest.raises(PullError, match="m-Q4_K_M: the repository has 2 of its 3 parts"):
        select(found, ":Q4_K_M")
    with pytest.raises(PullError, match="no whole model among m-Q4_K_M"):
        best(found, Room(GiB))


@pytest.mark.parametrize("name", ["mmproj-model-f16.gguf", "x-lora-F16.gguf", "imatrix.gguf"])
def test_what_goes_with_a_model_is_fetched_only_by_name(name: str) -> None:
    found = group(remote(name, "m-Q8_0.gguf"))
    assert [offer.id for offer in best(found, Room(GiB)).offers] == ["m-Q8_0"]
    assert select(found, name).offers[0].files[0].path == name
    with pytest.raises(InvalidRequest):
        select(group(remote(name)), ":F16")


@pytest.mark.parametrize(
    ("ram", "vram", "quant"),
    [
        (64, 0, "Q6_K"),  # never Q8_0, which hardly is better
        (512, 0, "Q6_K"),
        (38, 0, "Q5_K_M"),
        (32, 0, "Q4_K_M"),
        (28, 0, "Q4_0"),  # below Q4_K_M, what fits
        (20, 0, "Q2_K"),
        (64, 32, "Q4_K_M"),  # all on the GPU is faster than Q6_K in part
        (64, 24, "Q6_K"),
        (14, 24, "Q5_K_M"),
    ],
)
def test_the_best_quant_of_a_machine(ram: int, vram: int, quant: str) -> None:
    choice = best(MIXTRAL, Room(ram * GiB, vram * GiB))
    assert [offer.quant for offer in choice.offers] == [quant]


def test_the_choice_is_explained() -> None:
    assert best(MIXTRAL, Room(38 * GiB)).reason == (
        "Q5_K_M, 30.9 GiB: the largest of Q4_K_M to Q6_K that fits, with 3.6 GiB for the context, "
        "into 38.0 GiB of memory"
    )


def test_without_the_preferred_the_largest_quant_and_then_the_full_precision() -> None:
    assert best(group(remote("a-Q8_0.gguf", "a-F16.gguf")), Room(GiB)).offers[0].quant == "Q8_0"
    assert best(group(remote("a-BF16.gguf")), Room(GiB)).offers[0].quant == "BF16"
    assert best(group(remote("a.gguf")), Room(GiB)).reason.startswith("a, 10 bytes: the largest")


def test_what_does_not_fit_is_told_in_numbers() -> None:
    with pytest.raises(PullError) as caught:
        best(MIXTRAL, Room(8 * GiB, GiB))
    assert caught.value.message.startswith(
        "the smallest, Q2_K, needs 18.2 GiB with its context, and 9.0 GiB are free; name one"
    )


@given(
    st.lists(st.tuples(st.sampled_from(sorted(SIZES)), st.integers(0, 2**36)), min_size=1),
    st.integers(0, 2**37),
    st.integers(0, 2**37),
)
def test_the_best_always_fits(files: list[tuple[str, int]], ram: int, vram: int) -> None:
    found = group(
        RemoteFile(f"{i}.{quant}.gguf", size, "") for i, (quant, size) in enumerate(files)
    )
    try:
        (chosen,) = best(found, Room(ram, vram)).offers
    except PullError:
        assert all(offer.need > ram + vram for offer in found)
    else:
        assert chosen.need <= ram + vram


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (2048, "2.0 KiB"), (98_322_432, "93.8 MiB"), (5_261_334_937, "4.9 GiB")],
)
def test_sizes_are_shown_short(n_bytes: int, text: str) -> None:
    assert shown(n_bytes) == text
    assert listed(group(remote("m.gguf", size=n_bytes))) == f"m ({text})"
