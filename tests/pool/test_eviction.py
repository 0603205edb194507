"""Who gives way: properties of the decisions, and days of mixed traffic that obey them."""

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.placement import Need
from server.pool.eviction import (
    TIE_S,
    Evict,
    Held,
    Steps,
    TooLarge,
    Verdict,
    Wait,
    Waiting,
    make_room,
    next_steps,
    undecided,
)

SWAP_AFTER_S = 5.0
NOW = 100.0


def held(
    id: str,
    ram: int = 1,
    *,
    busy: bool = False,
    pinned: bool = False,
    used: float = 0.0,
    load_s: float = 1.0,
    leaving: bool = False,
    draining: bool = False,
) -> Held:
    return Held(id, Need(ram), busy, pinned, used, load_s, leaving, draining)


def needs(n_gpus: int, most: int) -> st.SearchStrategy[Need]:
    size = st.integers(0, most)
    return st.builds(Need, size, st.tuples(*[size] * n_gpus))


def helds(n_gpus: int) -> st.SearchStrategy[list[Held]]:
    """Models of which some are in each state, with distinct ids."""
    one = st.builds(
        Held,
        id=st.sampled_from([f"h{n}" for n in range(8)]),
        need=needs(n_gpus, 10),
        busy=st.booleans(),
        pinned=st.booleans(),
        last_used=st.sampled_from([0.0, 0.5, 10.0, 20.0]),
        load_s=st.sampled_from([1.0, 2.0]),
        leaving=st.booleans(),
        draining=st.booleans(),
        ready_since=st.sampled_from([0.0, NOW - 5.5, NOW - 1.0, math.inf]),
    )
    return st.lists(one, max_size=6, unique_by=lambda each: each.id)


def waitings(n_gpus: int) -> st.SearchStrategy[list[Waiting]]:
    """Some that are due, some that are not."""
    one = st.builds(
        Waiting,
        id=st.sampled_from([f"w{n}" for n in range(8)]),
        need=needs(n_gpus, 20),
        since=st.sampled_from([NOW - 6.0, NOW - 5.0, NOW - 4.0, NOW - 1.0, NOW]),
        may_evict=st.booleans(),
    )
    return st.lists(one, min_size=1, max_size=5, unique_by=lambda each: each.id)


SERVERS = frozenset({"s0", "s1", "s2"})
SOME_SERVERS = st.frozensets(st.sampled_from(sorted(SERVERS)))


@st.composite
def there(draw: st.DrawFn, n_gpus: int) -> tuple[Need, list[Held]]:
    """What there is and who holds it; no two of them the same server."""
    free, taken = SERVERS, list[Held]()
    for each in draw(helds(n_gpus)):
        servers = draw(SOME_SERVERS) & free
        free -= servers
        taken.append(each._replace(need=each.need._replace(servers=servers)))
    return draw(needs(n_gpus, 40))._replace(servers=SERVERS), taken


@st.composite
def rooms(draw: st.DrawFn) -> tuple[Need, Need, list[Held]]:
    """What is wanted, what there is, who holds it."""
    n_gpus = draw(st.integers(0, 2))
    wanted = draw(needs(n_gpus, 20))._replace(servers=draw(SOME_SERVERS))
    return wanted, *draw(there(n_gpus))


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[Waiting], Need, list[Held]]:
    """Who waits, what there is, who holds it."""
    n_gpus = draw(st.integers(0, 2))
    waiting = [
        each._replace(need=each.need._replace(servers=draw(SOME_SERVERS)))
        for each in draw(waitings(n_gpus))
    ]
    return waiting, *draw(there(n_gpus))


def free_of(total: Need, held: Sequence[Held], without: Sequence[str] = ()) -> Need:
    """What is left when those of the ids `without` are gone."""
    for each in held:
        if each.id not in without:
            total = total.less(each.need)
    return total


def order(held: Held) -> tuple[bool, bool, bool, int, float, float]:
    """Who goes first."""
    return (
        not held.leaving,
        held.busy,
        not held.draining,
        int(held.last_used // TIE_S),
        held.load_s,
        held.last_used,
    )


# One model that is wanted.


@given(rooms())
def test_what_is_named_is_enough_and_may_go(room: tuple[Need, Need, list[Held]]) -> None:
    wanted, total, all_held = room
    verdict = make_room(wanted, total, all_held)
    known = {each.id: each for each in all_held}
    match verdict:
        case Evict(ids=ids):
            assert all(known[id].leaving or not known[id].busy for id in ids)
        case Wait(ids=ids):
            assert any(known[id].busy and not known[id].leaving for id in ids)
        case TooLarge():
            return
    assert all(known[id].leaving or not known[id].pinned for id in ids)
    assert wanted.within(free_of(total, all_held, ids))


@given(rooms())
def test_nobody_is_named_whose_memory_is_not_needed(room: tuple[Need, Need, list[Held]]) -> None:
    wanted, total, all_held = room
    verdict = make_room(wanted, total, all_held)
    if isinstance(verdict, TooLarge):
        return
    leaving = {each.id for each in all_held if each.leaving}
    for id in verdict.ids:
        others = [other for other in verdict.ids if other != id]
        assert id in leaving or not wanted.within(free_of(total, all_held, others))
    if wanted.within(free_of(total, all_held)):
        assert verdict == Evict(())


@given(rooms())
def test_a_busy_one_is_named_only_where_idle_ones_do_not_suffice(
    room: tuple[Need, Need, list[Held]],
) -> None:
    wanted, total, all_held = room
    idle = [each.id for each in all_held if each.leaving or not (each.busy or each.pinned)]
    enough = wanted.within(free_of(total, all_held, idle))
    assert enough == isinstance(make_room(wanted, total, all_held), Evict)


@given(rooms())
def test_the_last_one_named_goes_as_early_as_can_be(room: tuple[Need, Need, list[Held]]) -> None:
    """All those together that come before it in the order are too little."""
    wanted, total, all_held = room
    verdict = make_room(wanted, total, all_held)
    if isinstance(verdict, TooLarge) or not verdict.ids:
        return
    known = {each.id: each for each in all_held}
    ids = list(verdict.ids)
    assert [order(known[id]) for id in ids] == sorted(order(known[id]) for id in ids)
    last = order(known[ids[-1]])
    before = [
        each.id for each in all_held if order(each) < last and (each.leaving or not each.pinned)
    ]
    assert not wanted.within(free_of(total, all_held, before))


@given(rooms())
def test_too_large_tells_what_the_pinned_ones_leave(room: tuple[Need, Need, list[Held]]) -> None:
    wanted, total, all_held = room
    pinned = [each for each in all_held if each.pinned and not each.leaving]
    left = free_of(total, pinned)
    verdict = make_room(wanted, total, all_held)
    assert isinstance(verdict, TooLarge) != wanted.within(left)
    if isinstance(verdict, TooLarge):
        assert verdict == TooLarge(left, tuple(each.id for each in pinned))


ORDERS = [
    ([held("new", used=50.0), held("old", used=10.0)], "old"),
    ([held("slow", used=10.0, load_s=9.0), held("quick", used=10.6, load_s=1.0)], "quick"),
    ([held("quick", used=11.2, load_s=1.0), held("slow", used=10.0, load_s=9.0)], "slow"),
    ([held("old", used=10.0), held("leaving", used=50.0, leaving=True, busy=True)], "leaving"),
    ([held("old", used=10.0, pinned=True), held("new", used=50.0)], "new"),
    ([held("busy", used=10.0, busy=True), held("idle", used=50.0)], "idle"),
    ([held("busy", busy=True), held("draining", used=9.0, busy=True, draining=True)], "draining"),
    ([held("idle", used=1.0), held("draining", used=9.0, draining=True)], "draining"),
    ([held("small", 1, used=1.0), held("large", 5, used=9.0)], "large"),
]


@pytest.mark.parametrize(("all_held", "first"), ORDERS)
def test_who_goes_first(all_held: list[Held], first: str) -> None:
    """As much is wanted as the largest takes, and all is taken."""
    total = Need(sum(each.need.ram for each in all_held))
    verdict = make_room(Need(max(each.need.ram for each in all_held)), total, all_held)
    assert not isinstance(verdict, TooLarge) and verdict.ids == (first,)


def test_every_memory_counts_for_itself() -> None:
    on = {
        "cpu": Held("cpu", Need(8, (0, 0)), False, False, 0.0, 1.0),
        "gpu0": Held("gpu0", Need(1, (9, 0)), False, False, 1.0, 1.0),
        "gpu1": Held("gpu1", Need(1, (0, 9)), False, False, 2.0, 1.0),
    }
    total = Need(12, (10, 10))
    both = tuple(on.values())
    assert make_room(Need(1, (0, 5)), total, both) == Evict(("gpu1",))
    assert make_room(Need(1, (5, 0)), total, both) == Evict(("gpu0",))
    assert make_room(Need(4, (5, 5)), total, both) == Evict(("gpu0", "gpu1"))
    assert make_room(Need(9, (1, 1)), total, both) == Evict(("cpu",))
    assert make_room(Need(1, (0, 11)), total, both) == TooLarge(total, ())


def test_a_server_has_one_client() -> None:
    """However much memory there is; and who has none of it stays."""
    total = Need(100, servers=SERVERS)
    wanted = Need(1, servers=frozenset({"s0", "s1"}))
    idle = held("idle", used=10.0)
    first = idle._replace(id="first", need=Need(1, servers=frozenset({"s0"})))
    other = idle._replace(id="other", need=Need(1, servers=frozenset({"s2"})))
    assert make_room(wanted, total, [idle, first, other]) == Evict(("first",))
    assert make_room(wanted, total, [idle, other]) == Evict(())
    busy = first._replace(busy=True)
    assert make_room(wanted, total, [idle, busy, other]) == Wait(("first",))
    pinned = make_room(wanted, total, [first._replace(pinned=True), other])
    assert pinned == TooLarge(Need(99, servers=frozenset({"s1", "s2"})), ("first",))


# Several that wait.


def in_line(waiting: Sequence[Waiting], steps: Steps) -> list[Waiting]:
    """Those that still wait, the first one first."""
    gone = {*steps.load, *(id for id, _ in steps.refuse)}
    return [each for each in sorted(waiting, key=lambda e: e.since) if each.id not in gone]


def loaded(waiting: Sequence[Waiting], steps: Steps) -> list[Held]:
    """Those that are loaded now, as they hold memory."""
    need = {each.id: each.need for each in waiting}
    return [Held(id, need[id], True, False, NOW, 0.0) for id in steps.load]


@given(queues())
def test_steps_take_only_what_is_free_and_touch_only_whom_they_may(
    queue: tuple[list[Waiting], Need, list[Held]],
) -> None:
    waiting, total, all_held = queue
    steps = next_steps(waiting, total, all_held, NOW, SWAP_AFTER_S)
    known = {each.id: each for each in all_held}
    named = [*steps.load, *steps.unload, *steps.drain, *(id for id, _ in steps.refuse)]
    assert len(named) == len(set(named))
    for id in (*steps.unload, *steps.drain):
        assert not known[id].pinned and not known[id].leaving
    assert all(known[id].busy for id in steps.drain)
    assert not any(known[id].busy for id in steps.unload)
    taken = [*all_held, *loaded(waiting, steps)]
    assert not steps.load or min_of(free_of(total, taken)) >= 0
    servers = [server for each in taken for server in each.need.servers]
    assert len(servers) == len(set(servers))


def min_of(need: Need) -> int:
    return min(need.ram, *need.gpus) if need.gpus else need.ram


@given(queues())
def test_who_waits_longest_has_its_turn_next(
    queue: tuple[list[Waiting], Need, list[Held]],
) -> None:
    waiting, total, all_held = queue
    steps = next_steps(waiting, total, all_held, NOW, SWAP_AFTER_S)
    line = in_line(waiting, steps)
    if not line:
        assert not steps.unload and not steps.drain and steps.look_again is None
        return
    first = line[0]
    taken = [*all_held, *loaded(waiting, steps)]
    verdict = make_room(first.need, total, taken)
    since = {each.id: each.since for each in waiting}
    passed = [id for id in steps.load if since[id] > first.since]
    due = first.since + SWAP_AFTER_S
    if isinstance(verdict, Wait) and steps.look_again is not None:
        longest_load = max((each.load_s for each in all_held), default=0.0)
        assert steps.look_again > NOW and due <= steps.look_again <= due + longest_load
        assert not steps.unload and not steps.drain
        return
    assert isinstance(verdict, Evict) or due <= NOW
    assert not passed and steps.look_again is None
    assert isinstance(verdict, Evict | Wait) and verdict.ids
    leaving = {each.id for each in all_held if each.leaving}
    assert {*steps.unload, *steps.drain} == {*verdict.ids} - leaving - {*steps.load}
    assert steps.room_for == first.id
    assert first.need.within(free_of(total, taken, verdict.ids))


@given(queues())
def test_refusals_are_final_and_have_their_numbers(
    queue: tuple[list[Waiting], Need, list[Held]],
) -> None:
    waiting, total, all_held = queue
    steps = next_steps(waiting, total, all_held, NOW, SWAP_AFTER_S)
    known = {each.id: each for each in waiting}
    for id, verdict in steps.refuse:
        match verdict:
            case TooLarge(left=left):
                assert not known[id].need.within(left)
                assert left == free_of(total, [e for e in all_held if e.pinned and not e.leaving])
            case Evict(ids=ids) | Wait(ids=ids):
                assert ids and not known[id].may_evict
    assert all(each.may_evict for each in in_line(waiting, steps)[:1])


BUSY = held("busy", 6, busy=True)
IDLE = held("idle", 3)


def steps_at(now: float, waiting: Sequence[Waiting], *all_held: Held) -> Steps:
    """Of 10 in all."""
    return next_steps(waiting, Need(10), all_held, now, SWAP_AFTER_S)


def test_idle_ones_go_at_once() -> None:
    waiting = [Waiting("w", Need(4), NOW)]
    assert steps_at(NOW, waiting, BUSY, IDLE) == Steps(unload=("idle",), room_for="w")


def test_busy_ones_are_drained_when_it_has_waited_long_enough() -> None:
    waiting = [Waiting("w", Need(8), NOW)]
    due = NOW + SWAP_AFTER_S
    assert steps_at(NOW, waiting, BUSY, IDLE) == Steps(look_again=due)
    assert steps_at(due - 0.01, waiting, BUSY, IDLE) == Steps(look_again=due)
    both = Steps(unload=("idle",), drain=("busy",), room_for="w")
    assert steps_at(due, waiting, BUSY, IDLE) == both


def test_busy_ones_that_were_still_loading_serve_for_a_while_first() -> None:
    waiting = [Waiting("w", Need(8), NOW)]
    loading = BUSY._replace(ready_since=math.inf, load_s=20.0)
    assert steps_at(NOW + 9, waiting, loading) == Steps(look_again=NOW + 20 + SWAP_AFTER_S)
    ready = loading._replace(ready_since=NOW + 10)
    due = NOW + 10 + SWAP_AFTER_S
    assert steps_at(due - 0.01, waiting, ready) == Steps(look_again=due)
    assert steps_at(due, waiting, ready).drain == ("busy",)
    # One that was loaded again and again in the meantime does not put it off for ever.
    again = BUSY._replace(ready_since=NOW + 20, load_s=1.0)
    assert steps_at(NOW + 21, waiting, again).drain == ("busy",)


def test_a_later_one_passes_where_there_is_room_until_the_first_is_due() -> None:
    waiting = [Waiting("small", Need(1), NOW + 1), Waiting("large", Need(8), NOW)]
    due = NOW + SWAP_AFTER_S
    assert steps_at(NOW + 1, waiting, BUSY, IDLE) == Steps(load=("small",), look_again=due)
    assert steps_at(due, waiting, BUSY, IDLE).load == ()
    evicting = [Waiting("small", Need(4), NOW + 1), Waiting("large", Need(8), NOW)]
    assert steps_at(NOW + 1, evicting, BUSY, IDLE) == Steps(look_again=due)


def test_what_leaves_already_is_waited_for() -> None:
    waiting = [Waiting("w", Need(4), NOW)]
    going = IDLE._replace(leaving=True, busy=True)
    assert steps_at(NOW, waiting, BUSY, going) == Steps(room_for="w")


def test_several_are_loaded_into_what_is_free_for_all_of_them() -> None:
    waiting = [Waiting(id, Need(4), NOW + n) for n, id in enumerate("abc")]
    assert steps_at(NOW + 3, waiting) == Steps(load=("a", "b"), look_again=NOW + 2 + SWAP_AFTER_S)


def test_preloads_are_refused_where_nothing_is_free() -> None:
    waiting = [Waiting("p", Need(4), NOW, may_evict=False), Waiting("q", Need(11), NOW + 1)]
    verdicts: dict[str, Verdict] = dict(steps_at(NOW + 1, waiting, BUSY, IDLE).refuse)
    assert verdicts == {"p": Evict(("idle",)), "q": TooLarge(Need(10), ())}


# A day of traffic, in virtual time.

UNLOAD_S = 0.5
DAY_S = 24 * 3600.0


@dataclass
class Model:
    """One model of the day, and what is going on with it."""

    id: str
    need: Need
    load_s: float
    pinned: bool = False
    idle_unload_s: float | None = None
    state: str = "absent"
    since: float | None = None
    deadline: float = 0.0
    """By when its load must have begun."""
    running: int = 0
    last_used: float = 0.0
    draining: bool = False
    ready_since: float = math.inf
    asked: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Requests that wait: when they came, how long they take."""

    @property
    def busy(self) -> bool:
        return self.running > 0 or (self.state == "loading" and bool(self.asked))


class Day:
    """Requests come, run and end; who is loaded is decided by `next_steps`."""

    def __init__(
        self, total: Need, models: Sequence[Model], asked: Sequence[tuple[float, str, float]]
    ):
        self.total = total
        self.models = {model.id: model for model in models}
        self.longest = max(takes for _, _, takes in asked)
        self.n_loads = self.n_served = self.n_drained = 0
        self.latest = 0.0
        """The longest wait for the begin of a load, as a share of its bound."""
        self._events: list[tuple[float, int, str, str, float]] = []
        self._n = 0
        self._looks = set[float]()
        for at, id, takes in asked:
            self._at(at, "ask", id, takes)

    def run(self) -> None:
        """Until nothing more happens."""
        while self._events:
            now, _, what, id, takes = heapq.heappop(self._events)
            model = self.models[id]
            match what:
                case "ask":
                    model.asked.append((now, takes))
                case "end":
                    model.running -= 1
                    model.last_used = now
                    if model.idle_unload_s is not None:
                        self._at(now + model.idle_unload_s, "idle", id, now)
                case "idle" if (
                    model.state == "ready" and not model.busy and model.last_used == takes
                ):
                    self._unload(model, now)
                case "loaded":
                    model.state, model.ready_since = "ready", now
                case "gone":
                    model.state, model.draining = "absent", False
                case _:
                    pass
            self._go_on(model, now)
            self._decide(now)

    def _at(self, at: float, what: str, id: str, takes: float = 0.0) -> None:
        self._n += 1
        heapq.heappush(self._events, (at, self._n, what, id, takes))

    def _go_on(self, model: Model, now: float) -> None:
        """Its requests run, or wait for it to be loaded."""
        if model.state == "ready" and not model.draining:
            for _, takes in model.asked:
                model.running += 1
                self.n_served += 1
                self._at(now + takes, "end", model.id)
            model.asked.clear()
        elif model.state == "absent" and model.asked and model.since is None:
            before = [
                m for m in self.models.values() if m.since is not None or m.state == "loading"
            ]
            model.since = now
            turns = (1 + len(before)) * (self.longest + UNLOAD_S)
            slowest = max(m.load_s for m in self.models.values())
            loads = slowest + sum(m.load_s for m in before)
            model.deadline = now + SWAP_AFTER_S + turns + loads

    def _decide(self, now: float) -> None:
        models = self.models.values()
        waiting = [Waiting(m.id, m.need, m.since) for m in models if m.since is not None]
        if not waiting:
            self._drain((), now)
            return
        steps = next_steps(waiting, self.total, self._held(), now, SWAP_AFTER_S)
        assert not steps.refuse
        for id in steps.load:
            self._load(self.models[id], now)
        for id in steps.unload:
            self._unload(self.models[id], now)
        self._drain(steps.drain, now)
        if steps.look_again is not None:
            assert steps.look_again > now
            if steps.look_again not in self._looks:
                self._looks.add(steps.look_again)
                self._at(steps.look_again, "look", waiting[0].id)

    def _held(self) -> list[Held]:
        return [
            Held(
                m.id, m.need, m.busy, m.pinned, m.last_used, m.load_s,
                m.state == "leaving", m.draining, m.ready_since,
            )
            for m in self.models.values()
            if m.state != "absent"
        ]  # fmt: skip

    def _load(self, model: Model, now: float) -> None:
        assert model.state == "absent" and model.since is not None
        assert now <= model.deadline, f"{model.id} waited {now - model.since} s"
        self.latest = max(self.latest, (now - model.since) / (model.deadline - model.since))
        model.state, model.since, model.ready_since = "loading", None, math.inf
        self.n_loads += 1
        assert min_of(free_of(self.total, self._held())) >= 0, "over budget"
        self._at(now + model.load_s, "loaded", model.id)

    def _unload(self, model: Model, now: float) -> None:
        assert model.state in ("loading", "ready") and not model.busy and not model.pinned
        model.state = "leaving"
        self._at(now + UNLOAD_S, "gone", model.id)

    def _drain(self, ids: Sequence[str], now: float) -> None:
        for model in self.models.values():
            was, model.draining = model.draining, model.id in ids
            self.n_drained += model.draining and not was
            if was and not model.draining:
                self._go_on(model, now)


def traffic(seed: int) -> tuple[Need, list[Model], list[tuple[float, str, float]]]:
    """Models of 1 to 12 of a budget of 24, one of them pinned; even seeds have a GPU too.

    Some requests come alone over the day, some in bursts for two or three models in turn, and one
    model is asked without a pause for an hour.
    """
    rng = random.Random(seed)
    models: list[Model] = []
    for n in range(10):
        size = rng.randint(1, 12)
        need = Need(size, (rng.randint(0, 6),)) if seed % 2 == 0 else Need(size)
        unload = rng.choice([None, 60.0, 600.0])
        models.append(Model(f"m{n}", need, size * 0.7, idle_unload_s=unload))
    small = min(models, key=lambda model: model.need)
    small.pinned, small.idle_unload_s = True, None
    total = Need(24, (12,)) if seed % 2 == 0 else Need(24)
    ids = [model.id for model in models]

    def takes() -> float:
        return rng.uniform(60, 120) if rng.random() < 0.03 else rng.expovariate(1 / 4)

    asked = [(rng.uniform(0, DAY_S), rng.choice(ids), takes()) for _ in range(600)]
    for _ in range(20):
        start, some = rng.uniform(0, DAY_S), rng.sample(ids, rng.randint(2, 4))
        asked += [(start + n * rng.expovariate(1.0), rng.choice(some), takes()) for n in range(40)]
    start, always = rng.uniform(0, DAY_S), rng.choice(ids)
    asked += [(start + 4.0 * n, always, 5.0) for n in range(400)]
    return total, models, sorted(asked)


@pytest.mark.parametrize("seed", range(8))
def test_a_day_of_mixed_traffic(seed: int) -> None:
    """Never over the budget, never a busy or a pinned one evicted: see the assertions of `Day`."""
    total, models, asked = traffic(seed)
    day = Day(total, models, asked)
    day.run()
    assert day.n_served == len(asked)
    assert all(model.state in ("absent", "ready") and not model.busy for model in models)
    assert sum(model.state == "ready" for model in models if model.pinned) == 1
    # The traffic is such that the rules are put to the test,
    assert day.n_drained and day.n_loads > 100
    # and serving in the order of arrival, one model at a time, would load far more often.
    switches = sum(a[1] != b[1] for a, b in pairwise(asked))
    assert day.n_loads < 0.5 * switches


@pytest.mark.parametrize("load_s", [1.0, 5.0, 12.0])
def test_two_models_that_are_always_busy_take_turns(load_s: float) -> None:
    """With room for one of them, each is loaded about once per `swap_after`, not per request."""
    models = [Model("a", Need(10), load_s), Model("b", Need(10), load_s)]
    asked = [(0.2 * n, "ab"[n % 2], 1.0) for n in range(5000)]
    day = Day(Need(10), models, asked)
    day.run()
    assert day.n_served == len(asked)
    assert 1000 / (load_s + SWAP_AFTER_S + 2) / 2 < day.n_loads
    assert day.n_loads <= 1.2 * 1000 / (load_s + SWAP_AFTER_S - UNLOAD_S)


@pytest.mark.parametrize(
    ("low", "high", "doubt"),
    [
        (1, 2, False),
        (1, 3, True),
        (3, 4, False),
        (4, 6, False),
        (4, 7, True),
        (1, 7, True),
        (7, 9, False),
    ],
)
def test_where_an_estimate_does_not_tell(low: int, high: int, doubt: bool) -> None:
    """Of 10 bytes 2 are free, 4 more where an idle and a busy model go, and 4 stay."""
    taken = [held("i", 2), held("b", 2, busy=True), held("p", 4, pinned=True)]
    assert undecided(Need(low), Need(high), Need(10), taken) is doubt


@given(rooms(), st.integers(0, 10))
def test_more_never_fits_where_less_does_not(
    room: tuple[Need, Need, list[Held]], more: int
) -> None:
    """So nothing between two needs of one answer has another."""
    wanted, total, taken = room
    steps = [wanted.plus(Need(n)) for n in range(more + 1)]
    if not undecided(steps[0], steps[-1], total, taken):
        assert not any(undecided(wanted, each, total, taken) for each in steps)
