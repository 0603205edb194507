"""`corral eval` on the command line: which options go together."""

import pytest
from typer.testing import CliRunner

from server.command_line import app


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gsm8k", "--model", "m", "--judge", "j"), "--judge goes with mt-bench"),
        (("gsm8k", "--model", "m", "--questions", "q"), "--questions goes with mt-bench"),
        (("mt-bench", "--model", "m", "--chat"), "--chat does not go with mt-bench"),
        (("mt-bench", "--model", "m", "--num-fewshot", "0"), "--num-fewshot does not go with"),
        (("mt-bench", "--model", "m"), "mt-bench needs a judge: --judge MODEL"),
        (("gsm8k_small", "--model", "m", "--limit", "0"), "'--limit'"),
        (("gsm8k", "--model", "m", "--data", "x"), "--data goes with one of gsm8k_card"),
        (("gsm8k",), "'--model'"),
    ],
)
def test_what_does_not_go_together(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ("eval", *arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_of_questions_that_is_missing() -> None:
    options = ("--model", "m", "--judge", "j", "--questions", "gone.jsonl")
    result = CliRunner().invoke(app, ("eval", "mt-bench", *options))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "corral: gone.jsonl: No such file or directory\n"
