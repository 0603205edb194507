"""Who listens hears everything, in order."""

import asyncio

import pytest

from server.pool import events
from server.pool.events import Events, StateChanged


def changed(n: int) -> StateChanged:
    return StateChanged(f"m{n}", "ready")


async def test_all_listeners_hear_what_comes_after_they_began() -> None:
    told = Events()
    told.publish(changed(0))
    first = told.listen()
    told.publish(changed(1))
    second = told.listen()
    told.publish(changed(2))
    told.close()
    heard = [[event.model for _ in range(3) if isinstance(event := await each.next(), StateChanged)]
             for each in (first, second)]  # fmt: skip
    assert heard == [["m1", "m2"], ["m2"]]
    assert await first.next() is None


async def test_a_listener_waits_for_the_next_one() -> None:
    told = Events()
    listener = told.listen()
    waiting = asyncio.create_task(listener.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    told.publish(changed(1))
    event = await waiting
    assert isinstance(event, StateChanged) and event.model == "m1"


async def test_closing_wakes_who_waits_and_ends_the_news() -> None:
    told = Events()
    listener = told.listen()
    waiting = asyncio.create_task(listener.next())
    await asyncio.sleep(0)
    listener.close()
    listener.close()
    assert await waiting is None
    told.publish(changed(1))
    assert await listener.next() is None


async def test_the_oldest_are_lost_to_who_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_KEPT", 2)
    told = Events()
    listener = told.listen()
    for n in range(5):
        told.publish(changed(n))
    event = await listener.next()
    assert isinstance(event, StateChanged) and event.model == "m3"
