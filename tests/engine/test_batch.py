"""The arrays of a batch hold what was added, whatever they held before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.batch import Batch

CAPACITY = 16

Span = tuple[int, list[int], int, int]

SPANS = st.lists(
    st.tuples(
        st.integers(0, 255),
        st.lists(st.integers(0, 50_000), min_size=1, max_size=6),
        st.integers(0, 8000),
        st.integers(0, 6),
    ),
    max_size=4,
)


def content(batch: Batch) -> list[tuple[int, int, int, int]]:
    n = batch.n_tokens
    columns = (batch.token, batch.pos, batch.slot, batch.wants_logits)
    return list(zip(*(column[:n].tolist() for column in columns), strict=True))


@given(rounds=st.lists(SPANS, min_size=1, max_size=3))
def test_tokens_in_the_order_they_were_added(rounds: list[list[Span]]) -> None:
    batch = Batch(CAPACITY)
    for spans in rounds:
        batch.clear()
        wanted: list[tuple[int, int, int, int]] = []
        for slot, tokens, pos, n_rows in spans:
            n_rows = min(n_rows, len(tokens))
            if len(tokens) > batch.room:
                continue
            batch.add(slot, np.array(tokens, np.int32), pos, n_rows)
            first = len(tokens) - n_rows
            wanted += [(t, pos + i, slot, i >= first) for i, t in enumerate(tokens)]
        assert content(batch) == wanted
        assert batch.n_rows == sum(row for *_, row in wanted)
        assert batch.room == CAPACITY - len(wanted)


@pytest.mark.parametrize("n", [0, 3])
def test_what_llama_cpp_would_abort_on_is_refused(n: int) -> None:
    batch = Batch(4)
    batch.add(0, [1, 2], 0, n_rows=0)
    with pytest.raises(AssertionError, match=f"span of {n} tokens, room for 2"):
        batch.add(1, [7] * n, 0, n_rows=1)
    assert (batch.n_tokens, batch.n_rows) == (2, 0)
