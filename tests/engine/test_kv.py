"""KVCells: where new sequences go, what is kept, and for how long."""

import pytest

from server.engine.kv import KVCells, Saved, Slot
from server.engine.llama import State
from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.ipc import GenerateRequest
from tests.engine.fake import GREEDY, Cell, FakeContext, FakeTokenizer

VOCABULARY = Vocabulary(FakeTokenizer())
LONG = [1 + i % 60 for i in range(20)]


def sequence(tokens: list[int], id: int = 0) -> Sequence:
    return Sequence(id, GenerateRequest(tuple(tokens), GREEDY, 4), VOCABULARY, 64)


def cells(context: FakeContext, can_trim: bool = True, budget: int = 10**6) -> KVCells:
    return KVCells(context, context.n_cells is not None, can_trim, budget)


def claim(kv: KVCells, context: FakeContext, tokens: list[int]) -> Sequence:
    """A sequence with its slot and all of its prompt computed."""
    s = sequence(tokens)
    kv.claim(s, kv.match(s))
    assert s.slot is not None
    context.cells[s.slot] += [Cell(t) for t in tokens[s.n_cached :]]
    s.n_cached = s.n_tokens
    kv.check()
    return s


def test_running_slots_lie_side_by_side() -> None:
    context = FakeContext(n_slots=6)
    kv = cells(context)
    running = [claim(kv, context, [10 + i] * 3) for i in range(6)]
    assert sorted(s.slot or 0 for s in running) == list(range(6))
    for s in running[:2] + running[5:]:
        kv.release(s, keep=True)
    slots = sorted(s.slot for s in running[2:5] if s.slot is not None)
    newcomer = claim(kv, context, [30] * 3)
    assert newcomer.slot in (slots[0] - 1, slots[-1] + 1)
    assert not kv.has_gap


def test_an_idle_engine_prefers_empty_slots_and_then_the_oldest() -> None:
    context = FakeContext(n_slots=3)
    kv = cells(context)
    used: list[int | None] = []
    for i in range(5):
        s = claim(kv, context, [10 + i] * 9)
        used.append(s.slot)
        kv.release(s, keep=True)
    assert used == [0, 1, 2, 0, 1]


def test_a_kept_slot_is_used_in_place() -> None:
    context = FakeContext()
    kv = cells(context)
    first = claim(kv, context, LONG)
    slot = first.slot
    kv.release(first, keep=True)
    second = sequence([*LONG, 5])
    match = kv.match(second)
    assert match.n == len(LONG)
    kv.claim(second, match)
    assert (second.slot, second.n_cached, second.n_reused) == (slot, len(LONG), len(LONG))


def test_sharing_is_by_identical_tokens_only() -> None:
    context = FakeContext()
    kv = cells(context)
    claim(kv, context, LONG)
    other = sequence([*LONG[:12], 61, *LONG[13:]])
    assert kv.match(other).n == 12
    assert kv.match(sequence([61, *LONG[1:]])).n == 0


def test_a_prefix_is_saved_once_for_all_who_copy_it(monkeypatch: pytest.MonkeyPatch) -> None:
    context = FakeContext(n_slots=4)
    kv = cells(context)
    claim(kv, context, LONG)
    saved: list[int] = []
    save = context.save

    def count(slot: int) -> State:
        saved.append(slot)
        return save(slot)

    monkeypatch.setattr(context, "save", count)
    for i in range(3):
        assert claim(kv, context, [*LONG[:-1], 50 + i]).n_reused == len(LONG) - 1
    assert len(saved) == 1


def test_a_second_wave_uses_the_slots_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """None moves to a neighbour's slot, which would have to be saved and filled again."""
    context = FakeContext(n_slots=6)
    kv = cells(context)
    for wave in range(3):
        running = [claim(kv, context, [*LONG, 30 + wave, 40 + i]) for i in range(4)]
        for s in running:
            kv.release(s, keep=True)
        monkeypatch.setattr(context, "save", None)
        monkeypatch.setattr(context, "restore", None)


@pytest.mark.parametrize(("n_own", "n_saved"), [(2, 0), (4, 1)])
def test_what_others_have_most_of_is_not_saved(n_own: int, n_saved: int) -> None:
    """The second got its prefix from the first, whose cells are in RAM since then."""
    context = FakeContext(n_slots=2)
    kv = cells(context)
    running = [claim(kv, context, [*LONG, *[30 + i] * n_own]) for i in range(2)]
    for s in running:
        kv.release(s, keep=True)
    saved: list[int] = []
    save = context.save

    def count(slot: int) -> State:
        saved.append(slot)
        return save(slot)

    context.save = count
    while kv.make_room():
        pass
    assert len(saved) == n_saved
    for i in range(2):
        assert kv.match(sequence([*LONG, *[30 + i] * n_own, 61])).n >= len(LONG)


def test_short_prefixes_are_not_copied() -> None:
    context = FakeContext()
    kv = cells(context)
    claim(kv, context, LONG)
    assert kv.match(sequence([*LONG[:7], 61])).n == 0
    assert kv.match(sequence([*LONG[:8], 61])).n == 8


def test_a_little_is_not_worth_copying_a_lot() -> None:
    context = FakeContext(n_ctx=2000)
    kv = cells(context)
    long = Sequence(0, GenerateRequest((*LONG[:8], *[3] * 500), GREEDY, 4), VOCABULARY, 2000)
    kv.claim(long, kv.match(long))
    context.cells[long.slot or 0] += [Cell(int(t)) for t in long.prompt]
    long.n_cached = long.n_tokens
    assert kv.match(sequence([*LONG[:8], 61])).n == 0


def test_a_model_that_cannot_trim_shares_whole_prefixes_only() -> None:
    context = FakeContext(can_trim=False)
    kv = cells(context, can_trim=False)
    first = claim(kv, context, LONG)
    assert kv.match(sequence([*LONG[:15], 61])).n == 0
    kv.release(first, keep=True)
    assert kv.match(sequence([*LONG, 61])).n == len(LONG)
    assert kv.match(sequence(LONG)).n == 0


def test_the_budget_of_saved_prefixes_is_kept_and_the_oldest_go() -> None:
    context = FakeContext(n_slots=1)
    size = 4 * len(LONG)
    kv = cells(context, budget=2 * size)
    for i in range(4):
        kv.release(claim(kv, context, [10 + i, *LONG[1:]]), keep=True)
        kv.check()
    held = {i: kv.match(sequence([10 + i, *LONG[1:], 5])).n for i in range(4)}
    assert held == {0: 0, 1: len(LONG), 2: len(LONG), 3: len(LONG)}
    assert isinstance(kv.match(sequence([11, *LONG[1:], 5])).holder, Saved)
    assert isinstance(kv.match(sequence([13, *LONG[1:], 5])).holder, Slot)


def test_a_longer_saved_prefix_replaces_the_shorter() -> None:
    context = FakeContext(n_slots=1)
    kv = cells(context)
    other = [50] * 12
    for tokens in (LONG[:10], other, LONG, other, LONG):
        kv.release(claim(kv, context, tokens), keep=True)
    assert len(kv._saved) == 2  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("n_cells", [None, 200])
def test_a_parked_sequence_gets_its_cells_back(n_cells: int | None) -> None:
    context = FakeContext(n_cells=n_cells)
    kv = cells(context)
    s = claim(kv, context, LONG)
    kv.park(s)
    assert (s.slot, context.n_used) == (None, 0)
    kv.claim(s, kv.match(s))
    assert s.parked is None
    assert [cell.token for cell in context.cells[s.slot or 0]] == LONG
    kv.check()


def test_in_the_unified_layout_a_prefix_is_shared_not_copied() -> None:
    context = FakeContext(n_cells=100)
    kv = cells(context)
    for i in range(4):
        claim(kv, context, [*LONG, 61 - i])
    assert context.n_used == len(LONG) + 4


def test_make_room_gives_up_the_oldest_and_remembers_it() -> None:
    context = FakeContext(n_cells=200)
    kv = cells(context)
    for i in range(2):
        kv.release(claim(kv, context, [10 + i, *LONG[1:]]), keep=True)
    assert kv.make_room()
    assert isinstance(kv.match(sequence([10, *LONG[1:], 5])).holder, Saved)
    assert isinstance(kv.match(sequence([11, *LONG[1:], 5])).holder, Slot)
    assert kv.make_room()
    assert not kv.make_room()
    assert context.n_used == 0


def test_check_notices_a_lost_cell() -> None:
    context = FakeContext()
    kv = cells(context)
    s = claim(kv, context, LONG)
    context.cells[s.slot or 0].pop()
    with pytest.raises(AssertionError, match="19 cells, believed 20"):
        kv.check()
