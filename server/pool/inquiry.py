"""Inquiry: a question that a process of its own answers, since llama.cpp may abort it."""

import asyncio
import os
import pickle

from server.errors import EngineError
from server.pool.process import ENVIRON, ended_how


async def inquire(command: tuple[str, ...], question: object, timeout_s: float) -> str:
    """What `command` prints when it is given `question`, pickled. The process ends with us.

    Raises EngineError, in the words of the process, if it fails, dies or hangs.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | ENVIRON,
        )
    except OSError as error:
        raise EngineError(f"no process: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            answer, words = await process.communicate(pickle.dumps(question))
    except TimeoutError:
        raise EngineError(f"not done after {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
        code = await process.wait()
    if code < 0:
        raise EngineError(f"llama.cpp died: {ended_how(code)}")
    if code:
        lines = words.decode(errors="replace").strip().splitlines()
        raise EngineError(lines[-1] if lines else "no reason given")
    return answer.decode(errors="replace")
