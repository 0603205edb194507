"""The process that is there before it is needed."""
# pyright: reportPrivateUsage=false

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing

import psutil
import pytest

from server.pool import spare as spares
from server.pool.adopted import adopt_orphans
from server.pool.spare import Spare, Started

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


COPIED = (sys.executable, "-m", "server.engine")


@pytest.fixture
def copied() -> Iterator[Spare]:
    """A spare that has imported everything, and stays."""
    spare = Spare(COPIED)
    spare.stays = True
    spare.prepare()
    assert spare._ahead is not None
    assert spare._ahead[1].poll(30)
    with closing(spare):
        yield spare


def end(started: Started) -> int:
    """End a process as its owner does; how it ended."""
    process, pipe = started
    process.kill()
    process.kill()
    code = process.wait()
    process.kill()
    assert process.poll() == code
    pipe.close()
    return code


def test_one_that_stays_gives_copies(copied: Spare) -> None:
    n_open = psutil.Process().num_fds()
    (ahead,) = psutil.Process().children()
    taken = [copied.take(), copied.take()]
    pids = {process.pid for process, _ in taken}
    assert len(pids) == 2
    assert ahead.pid not in pids
    # They are our own children, and nobody is left between.
    assert {each.pid for each in psutil.Process().children(recursive=True)} == {ahead.pid, *pids}
    assert [process.poll() for process, _ in taken] == [None, None]
    assert [end(each) for each in taken] == [-signal.SIGKILL, -signal.SIGKILL]
    assert psutil.Process().num_fds() == n_open


def test_a_copy_ends_by_itself_when_its_pipe_closes(copied: Spare) -> None:
    process, pipe = copied.take()
    pipe.close()
    assert process.wait() == 0


def test_copies_outlive_the_process_they_are_of(copied: Spare) -> None:
    taken = copied.take()
    copied.close()
    assert taken[0].poll() is None
    assert end(taken) == -signal.SIGKILL


def test_one_that_does_not_stay_is_taken_itself(copied: Spare) -> None:
    copied.stays = False
    (ahead,) = psutil.Process().children()
    taken = copied.take()
    assert taken[0].pid == ahead.pid
    end(taken)


def test_without_an_answer_a_new_process_is_started(
    copied: Spare, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spares, "COPY_S", 0.2)
    (ahead,) = psutil.Process().children()
    ahead.suspend()
    taken = copied.take()
    assert "gives no copies: none after" in caplog.text
    assert not ahead.is_running()
    end(taken)


def test_a_copy_that_is_nobodys_child_is_not_taken(
    copied: Spare, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As on a system that does not give us the orphans.
    monkeypatch.setattr(spares, "adopt_orphans", lambda: None)
    adopt_orphans(False)
    end(copied.take())
    assert "gives no copies: [Errno 10]" in caplog.text
    # It is not tried again.
    copied.prepare()
    (ahead,) = psutil.Process().children()
    taken = copied.take()
    assert taken[0].pid == ahead.pid
    end(taken)
