"""Eviction: which models give way so that another can be loaded. Pure functions of values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, assert_never

from server.need import Need

TIE_S = 1.0
"""Models that were last used within the same such span count as equally old."""


class Held(NamedTuple):
    """A model that takes memory."""

    id: str
    need: Need
    busy: bool
    """It has requests."""
    pinned: bool
    last_used: float
    """In seconds of any clock."""
    load_s: float
    """How long it takes to load it again."""
    leaving: bool = False
    """It is being unloaded already."""
    draining: bool = False
    """It takes no new requests, so that it can be unloaded soon."""
    ready_since: float = 0.0
    """When it began to serve, by the clock of `last_used`; infinite if it is still loading."""


class Waiting(NamedTuple):
    """A model that is wanted and not loaded."""

    id: str
    need: Need
    since: float
    """By the clock of `last_used`."""
    may_evict: bool = True
    """Else it is refused where nothing is free."""


@dataclass(frozen=True, slots=True)
class Evict:
    """There is room once these idle models are gone; with none, there is room now."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """There is room once these are gone, of which some are busy."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TooLarge:
    """There is no room even without all that may go. `left`: what the pinned ones leave."""

    left: Need
    pinned: tuple[str, ...]


Verdict = Evict | Wait | TooLarge


def make_room(wanted: Need, total: Need, held: Sequence[Held]) -> Verdict:
    """Who gives way so that a model that takes `wanted` can be loaded, where `total` is for all.

    Idle ones first, of these the least recently used, of equals the one that is loaded again
    soonest. A pinned one stays. Nobody is named whose memory the others make up for.
    """
    free = total
    for each in held:
        free = free.less(each.need)
    chosen: list[Held] = []
    for each in sorted((each for each in held if each.leaving or not each.pinned), key=_order):
        if wanted.within(free):
            break
        chosen.append(each)
        free = free.plus(each.need)
    if not wanted.within(free):
        pinned = tuple(each.id for each in held if each.pinned and not each.leaving)
        return TooLarge(free, pinned)
    # A small one was chosen before a large one that gives enough by itself.
    for each in reversed(chosen[:-1]):
        if not each.leaving and wanted.within(free.less(each.need)):
            chosen.remove(each)
            free = free.less(each.need)
    ids = tuple(each.id for each in chosen)
    return Wait(ids) if any(each.busy and not each.leaving for each in chosen) else Evict(ids)


def undecided(low: Need, high: Need, total: Need, held: Sequence[Held]) -> bool:
    """Whether a model that takes from `low` to `high` may or may not fit: beside all others, or
    where those that can go have gone.
    """
    return _answer(make_room(low, total, held)) != _answer(make_room(high, total, held))


def _answer(verdict: Verdict) -> str:
    match verdict:
        case Evict(ids=()):
            return "it fits"
        case Evict() | Wait():
            return "others go"
        case TooLarge():
            return "it does not fit"
        case _:
            assert_never(verdict)


def _order(held: Held) -> tuple[bool, bool, bool, int, float, float]:
    used = held.last_used
    going = (not held.leaving, held.busy, not held.draining)
    return (*going, int(used // TIE_S), held.load_s, used)


class Steps(NamedTuple):
    """What is to be done now."""

    load: tuple[str, ...] = ()
    unload: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    """All that are to take no new requests now; those not named take them again."""
    room_for: str | None = None
    """Who waits for those to go."""
    refuse: tuple[tuple[str, Verdict], ...] = ()
    look_again: float | None = None
    """When more is to be done even if nothing happens."""


def next_steps(
    waiting: Sequence[Waiting],
    total: Need,
    held: Sequence[Held],
    now: float,
    swap_after_s: float,
) -> Steps:
    """Who is loaded, unloaded, drained or refused, of the models that wait and that hold memory.

    Who waits longest comes first. It evicts idle models at once, busy ones are drained when it has
    waited for `swap_after_s`, and they have served as long; until then a later one may pass it, if
    that needs nobody's room.
    """
    load: list[str] = []
    refuse: list[tuple[str, Verdict]] = []
    held = list(held)
    due: float | None = None
    for each in sorted(waiting, key=lambda each: each.since):
        verdict = make_room(each.need, total, held)
        match verdict:
            case Evict(ids=()):
                load.append(each.id)
                held.append(Held(each.id, each.need, True, False, now, 0.0))
            case TooLarge():
                refuse.append((each.id, verdict))
            case _ if not each.may_evict:
                refuse.append((each.id, verdict))
            case _ if due is not None:
                pass  # somebody waits for room before it
            case Wait(ids=ids) if now < (at := _due(each, ids, held) + swap_after_s):
                due = at
            case Evict(ids=ids) | Wait(ids=ids):
                going = {each.id: each for each in held if each.id in ids}
                ids = tuple(id for id in ids if not going[id].leaving and id not in load)
                unload = tuple(id for id in ids if not going[id].busy)
                drain = tuple(id for id in ids if going[id].busy)
                return Steps(tuple(load), unload, drain, each.id, tuple(refuse))
    return Steps(tuple(load), refuse=tuple(refuse), look_again=due)


def _due(waiting: Waiting, ids: Sequence[str], held: Sequence[Held]) -> float:
    """From when on its patience counts: those of `ids` that were still loading serve first.

    Only for the time that a load takes, so that others that come and go cannot put it off.
    """
    busy = (each for each in held if each.id in ids and each.busy)
    begun = (min(each.ready_since, waiting.since + each.load_s) for each in busy)
    return max([waiting.since, *begun])
