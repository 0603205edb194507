"""Steps as bytes: what a worker sends for every token."""

import pickle
from typing import Any, cast

from server.ipc import Delta, Step


def pack(step: Step) -> bytes:
    """A step as a pickle of plain tuples, with the names of types only where one is not a Delta.

    It comes with every token, and takes a fifth of the time that one with all their names does.
    """
    events = [tuple(event) if type(event) is Delta else event for event in step.events]
    return pickle.dumps((events, step.n_running, step.n_waiting), pickle.HIGHEST_PROTOCOL)


def unpack(packed: bytes) -> object:
    """What `pack` was given, or any other pickled message."""
    message: object = pickle.loads(packed)
    if type(message) is not tuple:
        return message
    events, n_running, n_waiting = cast("tuple[list[Any], int, int]", message)
    told = tuple(Delta(*event) if type(event) is tuple else event for event in events)
    return Step(told, n_running, n_waiting)
