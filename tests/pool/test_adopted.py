"""Processes that others have started."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from server.pool.adopted import Adopted, adopt_orphans

STARTS_ANOTHER = """
import subprocess, sys
print(subprocess.Popen((sys.executable, "-c", sys.argv[1]), stdout=subprocess.DEVNULL).pid)
"""


def orphan(program: str) -> Adopted:
    """A process that runs `program`, and whose parent has ended."""
    command = (sys.executable, "-c", STARTS_ANOTHER, program)
    return Adopted(int(subprocess.check_output(command, text=True)))


@pytest.fixture(autouse=True)
def adopting() -> Iterator[None]:
    adopt_orphans()
    yield
    adopt_orphans(False)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.abort()", -6),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15),
    ],
)
def test_the_end_is_told_as_popen_tells_it(program: str, code: int) -> None:
    n_open = psutil.Process().num_fds()
    process = orphan(program)
    assert process.wait() == code
    assert (process.wait(), process.poll()) == (code, code)
    assert psutil.Process().num_fds() == n_open


def test_it_runs_until_it_is_killed() -> None:
    process = orphan("import time; time.sleep(60)")
    assert psutil.Process(process.pid).ppid() == os.getpid()
    assert process.poll() is None
    process.kill()
    assert process.wait() == -9
    process.kill()


def test_others_children_cannot_be_adopted() -> None:
    n_open = psutil.Process().num_fds()
    with pytest.raises(ChildProcessError):
        Adopted(os.getppid())
    assert psutil.Process().num_fds() == n_open
