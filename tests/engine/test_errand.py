"""The process that does errands: it ends with whoever sends them."""

import socket
import subprocess
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from server.errands import Advance, Quantize, Quantized, Refused


def test_it_ends_in_the_middle_of_a_job_when_its_pipe_closes(
    model_path: Path, tmp_path: Path
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            (sys.executable, "-m", "server.engine.quantizing", str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
        )
        pipe = Connection(ours.detach())
    job = Quantize(str(model_path), "IQ4_NL", str(tmp_path / "made.gguf"), 1, True)
    pipe.send(replace(job, source="nothing.gguf"))
    assert isinstance(pipe.recv(), Refused)
    pipe.send(job)
    plan = pipe.recv()
    assert isinstance(plan, Quantized)
    pipe.send(replace(job, plan=plan))
    first = pipe.recv()
    assert isinstance(first, Advance)
    assert 0 < first.done < first.total == plan.n_bytes
    pipe.close()
    assert process.wait(60) == 0
