"""The tree of errors: as drawn, and able to cross between processes."""

import inspect
import pickle
import re

import pytest

from server import errors
from server.errors import CorralError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", ALL)
def test_an_error_crosses_between_processes_whole(kind: type[CorralError]) -> None:
    sent = kind("4 of 3", param="messages.0", retry_after=2.5)
    got = pickle.loads(pickle.dumps(sent))
    assert type(got) is kind
    assert (got.message, got.param, got.retry_after) == ("4 of 3", "messages.0", 2.5)
    assert str(got) == "4 of 3"


def test_the_tree_is_as_its_module_draws_it() -> None:
    drawn: dict[str, str] = {}
    above = ["CorralError"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│ ]*)[├└]── (\w+)", line):
            depth = len(found[1]) // 4 + 1
            drawn[found[2]] = above[depth - 1]
            above[depth:] = [found[2]]
    assert drawn == {kind.__name__: kind.__mro__[1].__name__ for kind in ALL if kind != CorralError}
