"""The quantizer's log, in pieces of any size."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.transcript import ERROR, WARNING, Transcript
from server.errands import Fallback

INFO = 2

DRY = """\
llama_model_loader: - kv   0:                       general.architecture str              = llama
warning: blk.0.attn_k.weight                  - ncols    576 not divisible by 256 (required for \
type    q4_K) -> falling back to    q5_0
warning: blk.0.attn_q.weight                  - ncols    576 not divisible by 256 (required for \
type    q4_K) -> falling back to    q5_0
warning: odd.weight                           - ncols     30 not divisible by 256 (required for \
type    q6_K) (WARNING: must use F16 due to unusual shape) -> falling back to     f16
[   1/   4] output_norm.weight                   - [   576,      1,      1,      1], \
type =    f32, size =    0.002 MiB
[   2/   4] token_embd.weight                    - [   576,  49152,      1,      1], \
type =   q4_1, size =    16.88 MiB ->    28.69 MiB (q8_0)
[   3/   4] blk.0.attn_k.weight                  - [   576,    192,      1,      1], \
type =   bf16, converting to q5_0 .. size =     0.21 MiB ->     0.07 MiB
[   4/   4] same.weight                          - [   576,    192,      1,      1], \
type =   q6_K, size =    1.500 MiB
llama_model_quantize_impl: model size  =    18.59 MiB (5.74 BPW)
llama_model_quantize_impl: quant size  =    30.26 MiB (6.17 BPW)
"""


def read(pieces: Sequence[str]) -> tuple[Transcript, int]:
    """What became of the pieces, and how many of them completed a tensor."""
    transcript = Transcript()
    return transcript, sum(transcript.feed(INFO, piece) for piece in pieces)


def test_a_run_is_summed_up() -> None:
    transcript, done = read(DRY.splitlines(keepends=True))
    assert done == 4
    made = transcript.quantized()
    assert (made.n_tensors, made.bits_per_weight, made.needs_matrix) == (4, 6.17, False)
    assert made.n_bytes == transcript.n_bytes == round((0.002 + 28.69 + 0.07 + 1.5) * 2**20)
    assert made.source_bytes == round((0.002 + 16.88 + 0.21 + 1.5) * 2**20)
    # bf16 is no quant, and what stays as it is is not quantized again.
    assert made.requantized == ("q4_1",)
    assert made.fallbacks == (Fallback(576, "q4_K", "q5_0", 2), Fallback(30, "q6_K", "f16", 1))


@given(st.lists(st.integers(0, len(DRY)), max_size=20))
def test_where_it_is_cut_does_not_matter(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(DRY)]
    transcript, _ = read([DRY[a:b] for a, b in pairwise(ends)])
    assert transcript.quantized() == read([DRY])[0].quantized()


@given(st.lists(st.text()))
def test_any_text_is_taken(pieces: list[str]) -> None:
    assert read(pieces)[0].quantized().n_tensors >= 0


def test_a_matrix_that_will_be_needed_is_noticed() -> None:
    transcript, _ = read([DRY])
    transcript.feed(
        WARNING,
        "llama_model_quantize_impl: WARNING: dry run completed successfully, but actually "
        "completing this quantization will require an imatrix!\n",
    )
    assert transcript.quantized().needs_matrix


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ([], "llama.cpp gave no reason"),
        (
            ["\n=====\n", "llama_model_quantize: failed to quantize: requantizing is off\n"],
            "requantizing is off",
        ),
        (["a_function: odd\n", "second\n", "second\n"], "odd; second"),
    ],
)
def test_the_reason_of_a_failure(errors: list[str], reason: str) -> None:
    transcript = Transcript()
    for text in errors:
        assert not transcript.feed(ERROR, text)
    assert transcript.reason() == reason
