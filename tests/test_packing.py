"""Steps on their way from a worker to the server."""

import pickle

import pytest

from server.errors import InvalidRequest
from server.ipc import (
    Accepted,
    Delta,
    Echo,
    Event,
    Failed,
    Finished,
    Loading,
    Step,
    TokenScore,
)
from server.packing import pack, unpack

SCORE = TokenScore(1, b"a", -0.5, ((1, b"a", -0.5), (2, b"b", -1.0)))

EVENTS: tuple[Event, ...] = (
    Accepted(1, 20),
    Echo(1, (SCORE,)),
    Delta(1, "Hello", 2),
    Delta(2, "é", 1, (SCORE, SCORE)),
    Finished(2, "", 0, "stop", 5, 4, 3),
    Failed(3, InvalidRequest("no", "prompt")),
)


@pytest.mark.parametrize("n", range(len(EVENTS) + 1))
def test_a_step_comes_as_it_went(n: int) -> None:
    step = Step(EVENTS[:n], 2, 1)
    came = unpack(pack(step))
    assert isinstance(came, Step)
    assert (came.n_running, came.n_waiting) == (2, 1)
    assert [type(event) for event in came.events] == [type(event) for event in step.events]
    for ours, theirs in zip(step.events, came.events, strict=True):
        if isinstance(ours, Failed):
            assert isinstance(theirs, Failed)
            assert (theirs.id, str(theirs.error)) == (ours.id, str(ours.error))
        else:
            assert theirs == ours
        if isinstance(ours, Delta):
            assert isinstance(theirs, Delta)
            assert all(isinstance(score, TokenScore) for score in theirs.scores)


@pytest.mark.parametrize("message", [Loading(0.5), Step(EVENTS[:3], 1, 0)])
def test_what_was_only_pickled_comes_too(message: object) -> None:
    came = unpack(pickle.dumps(message))
    assert type(came) is type(message)
    assert came == message


def test_the_names_of_types_are_left_out_of_what_comes_with_every_token() -> None:
    packed = pack(Step((Delta(1, "Hello", 1), Delta(2, " you", 1)), 2, 0))
    assert b"server" not in packed
    assert len(packed) < 60
