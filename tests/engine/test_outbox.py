"""When events are sent."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from server.engine.outbox import Outbox
from server.errors import InvalidRequest
from server.ipc import Accepted, Delta, Event, Failed, Finished, Step
from server.packing import unpack

MS = 0.001


class Queues(NamedTuple):
    running: list[int]
    waiting: list[int]


class Sent:
    """An outbox with a clock of ours, and what it has sent."""

    def __init__(self, interval_ms: int):
        self.now = 100.0
        self.steps: list[Step] = []
        self.outbox = Outbox(self._take, interval_ms, lambda: self.now)

    def _take(self, packed: bytes) -> None:
        step = unpack(packed)
        assert isinstance(step, Step)
        self.steps.append(step)

    def put(self, after_ms: float, *events: Event) -> int:
        """Put them in so much later; the number of messages by then."""
        self.now += after_ms * MS
        self.outbox.put(list(events))
        return len(self.steps)


def delta(id: int = 1, text: str = "a") -> Delta:
    return Delta(id, text, 1)


def finished(id: int = 1) -> Finished:
    return Finished(id, "", 0, "stop", 1, 0, 1)


def begun(interval_ms: int) -> Sent:
    """With one stream that has had its first text just now."""
    sent = Sent(interval_ms)
    sent.put(0, Accepted(1, 5))
    sent.put(50, delta())
    sent.steps.clear()
    return sent


def test_quick_tokens_go_together_and_in_time() -> None:
    sent = begun(25)
    # After 20 ms there is no telling whether the next one will come before 25.
    assert [sent.put(5, delta()) for _ in range(12)] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]
    assert [len(step.events) for step in sent.steps] == [5, 5]


def test_slow_ones_go_each_by_itself() -> None:
    sent = begun(25)
    assert [sent.put(13, delta()) for _ in range(3)] == [1, 2, 3]


def test_without_an_interval_each_goes_by_itself() -> None:
    sent = begun(0)
    assert [sent.put(0.01, delta()) for _ in range(3)] == [1, 2, 3]


def test_the_first_text_does_not_wait() -> None:
    sent = begun(25)
    assert sent.put(1, Accepted(2, 5)) == 1
    assert sent.put(1, delta(2)) == 2
    assert sent.put(1, delta(1), delta(2)) == 2


def test_nothing_else_waits_and_takes_along_what_does() -> None:
    for event in (finished(), Failed(1, InvalidRequest("no", "prompt"))):
        sent = begun(25)
        assert sent.put(1, delta()) == 0
        assert sent.put(1, event) == 1
        assert [type(each) for each in sent.steps[0].events] == [Delta, type(event)]


def test_flush_sends_what_waits_once() -> None:
    sent = begun(25)
    sent.put(1, delta())
    sent.outbox.flush()
    sent.outbox.flush()
    assert len(sent.steps) == 1


def test_the_queues_are_told() -> None:
    sent = begun(0)
    sent.outbox.queues = Queues(running=[1, 2], waiting=[3])
    sent.put(1)
    assert sent.steps == [Step((), 2, 1)]


@given(
    st.integers(0, 40),
    st.lists(st.tuples(st.floats(0.1, 60), st.integers(1, 3), st.integers(0, 9)), max_size=40),
)
def test_nothing_is_lost_and_each_stream_keeps_its_order(
    interval_ms: int, puts: list[tuple[float, int, int]]
) -> None:
    sent = Sent(interval_ms)
    put: list[Event] = []
    for after_ms, id, kind in puts:
        event = {0: Accepted(id, 1), 1: finished(id)}.get(kind, delta(id, str(len(put))))
        put.append(event)
        sent.put(after_ms, event)
    sent.outbox.flush()
    assert [event for step in sent.steps for event in step.events] == put
