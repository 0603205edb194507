"""Where single tensors go, as llama.cpp is told."""

import re
from typing import Any

import pytest

from server.engine.llama.overrides import experts, overrides
from server.engine_config import EngineConfig
from server.errors import ModelLoadError

TYPES = {"CPU": 1, "CUDA0": 2}


def rows(**settings: Any) -> list[tuple[bytes | None, int | None]]:
    """What the array holds, its end included."""
    found = overrides(EngineConfig(**settings), TYPES)
    return [(row.pattern, row.buffer_type) for row in found]


def test_nothing_is_told_without_any() -> None:
    assert overrides(EngineConfig(), TYPES) is None


def test_patterns_go_as_they_are_and_in_order() -> None:
    assert rows(override_tensors=("b=CUDA0", r"a(?=\d)=CPU")) == [
        (b"b", 2),
        (rb"a(?=\d)", 1),
        (None, None),
    ]
    assert rows(override_tensors={"b": "CUDA0"}) == [(b"b", 2), (None, None)]


def test_experts_come_last() -> None:
    told = rows(override_tensors=("b=CUDA0",), n_cpu_moe=2)
    assert told == [(b"b", 2), (experts(2).encode(), 1), (None, None)]


def test_a_buffer_type_that_does_not_exist() -> None:
    with pytest.raises(ModelLoadError) as caught:
        rows(override_tensors=("b=CUDA0", "a=CUDA1"))
    assert caught.value.message == (
        "engine.override_tensors: 'a=CUDA1': there is no buffer type CUDA1; there are CPU, CUDA0"
    )


@pytest.mark.parametrize(
    ("n_layers", "name", "stays"),
    [
        (1, "blk.0.ffn_up_exps.weight", True),
        (1, "blk.0.ffn_gate_up_exps.weight", True),
        (1, "blk.0.ffn_down_chexps.weight", True),
        (1, "blk.0.ffn_gate_exps.bias", True),
        (1, "blk.1.ffn_up_exps.weight", False),
        (1, "blk.10.ffn_up_exps.weight", False),
        (11, "blk.10.ffn_up_exps.weight", True),
        (11, "blk.11.ffn_up_exps.weight", False),
        (11, "blk.0.ffn_gate_inp.weight", False),
        (11, "blk.0.ffn_up.weight", False),
        (11, "blk.0.ffn_up_shexp.weight", False),
        ("all", "blk.47.ffn_up_exps.weight", True),
        ("all", "blk.47.attn_q.weight", False),
    ],
)
def test_which_tensors_hold_experts(n_layers: int | str, name: str, stays: bool) -> None:
    assert bool(re.search(experts(n_layers), name)) is stays
