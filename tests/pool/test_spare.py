"""The process that is there before it is needed."""

import os
import sys

import psutil
import pytest

from server.pool.spare import Spare

WAITING = (sys.executable, "-c", "import time; time.sleep(60)")


def test_what_was_prepared_is_taken_once() -> None:
    spare = Spare(WAITING)
    spare.prepare()
    (ahead,) = psutil.Process().children()
    spare.prepare()  # one is enough
    process, pipe = spare.take()
    other, other_pipe = spare.take()
    try:
        assert process.pid == ahead.pid != other.pid
    finally:
        for each, its_pipe in ((process, pipe), (other, other_pipe)):
            each.kill()
            each.wait()
            its_pipe.close()


def test_one_that_has_ended_is_not_taken() -> None:
    spare = Spare((sys.executable, "-c", ""))
    spare.prepare()
    (ahead,) = psutil.Process().children()
    n_open = psutil.Process().num_fds()
    while ahead.status() != psutil.STATUS_ZOMBIE:
        pass
    process, pipe = spare.take()
    assert process.pid != ahead.pid
    assert psutil.Process().num_fds() == n_open
    process.wait()
    pipe.close()


def test_close_leaves_nothing() -> None:
    n_open = psutil.Process().num_fds()
    spare = Spare(WAITING)
    spare.close()
    spare.prepare()
    (ahead,) = psutil.Process().children()
    spare.close()
    spare.close()
    assert not psutil.pid_exists(ahead.pid)
    assert psutil.Process().num_fds() == n_open


def test_a_failure_shows_when_it_is_needed() -> None:
    spare = Spare((f"{os.sep}no such program",))
    spare.prepare()
    with pytest.raises(FileNotFoundError):
        spare.take()
