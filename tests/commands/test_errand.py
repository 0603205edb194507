"""Errands: what comes back of them, and what is said of a process that dies."""

from pathlib import Path

import pytest

from server.commands.errand import Errand
from server.errands import Advance, Quantize, Quantized
from server.errors import CommandError

JOB = Quantize("nothing.gguf", "Q8_0", "out.gguf", 1, True)


def unexpected(advance: Advance) -> None:
    pytest.fail(f"{advance}")


def test_a_refusal_is_an_error_and_the_process_goes_on(model_path: Path) -> None:
    with Errand("server.engine.quantizing") as errand:
        with pytest.raises(CommandError, match=r"cannot make Q8_0 of nothing.gguf: .*No such file"):
            errand.ask(JOB, Quantized, unexpected)
        plan = errand.ask(Quantize(str(model_path), "Q8_0", "", 1, True), Quantized, unexpected)
    assert plan.n_tensors == 272


@pytest.mark.parametrize(
    ("module", "how"),
    [("tests.commands.dying", "SIGABRT"), ("tests.commands.nowhere", "exit status 1")],
)
def test_a_death_is_told(module: str, how: str) -> None:
    with Errand(module) as errand, pytest.raises(CommandError, match=f"llama.cpp died: {how}"):
        errand.ask(JOB, Quantized, unexpected)
