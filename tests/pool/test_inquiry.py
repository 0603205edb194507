"""Questions to other processes: their answers, and the ways in which there is none."""

import asyncio
import sys

import psutil
import pytest

from server.errors import EngineError
from server.pool.inquiry import inquire

ECHO = "import pickle, sys; print(pickle.load(sys.stdin.buffer)['a'])"


def python(program: str) -> tuple[str, ...]:
    return sys.executable, "-c", program


async def test_an_answer() -> None:
    assert await inquire(python(ECHO), {"a": "ä"}, 30) == "ä\n"


@pytest.mark.parametrize(
    ("program", "timeout_s", "why"),
    [
        ("import os; os.abort()", 30, "llama.cpp died: signal SIGABRT"),
        ("import time; time.sleep(60)", 0.2, "not done after 0.2 s"),
        ("raise SystemExit(1)", 30, "no reason given"),
        ("raise SystemExit('first\\nlast')", 30, "last"),
    ],
)
async def test_no_answer(program: str, timeout_s: float, why: str) -> None:
    with pytest.raises(EngineError) as caught:
        await inquire(python(program), "x" * 1_000_000, timeout_s)
    assert caught.value.message == why
    assert psutil.Process().children() == []


async def test_no_process() -> None:
    with pytest.raises(EngineError, match="no process: No such file"):
        await inquire(("/nowhere/python",), 1, 1)


async def test_a_question_that_is_taken_back_ends_the_process() -> None:
    asking = asyncio.create_task(inquire(python("import time; time.sleep(60)"), 1, 60))
    while not psutil.Process().children():
        await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert psutil.Process().children() == []
