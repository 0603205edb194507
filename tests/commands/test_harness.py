"""The process that runs lm-evaluation-harness, where it cannot; where it can: tests/third_party."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.commands.endpoint import Endpoint
from server.commands.failure import CommandError
from server.commands.harness import Harness, Order

ORDER = Order(("gsm8k_small",), limit=3)


PLACE = Endpoint("http://nowhere", "m")

ASKS = """
import json, sys
order = json.loads(sys.stdin.readline())
print("{}", flush=True)
place = json.loads(sys.stdin.readline())
say = sys.stderr.write
say("Tokenizing inputs:  50%|##   | 1/2 [00:00<00:00, 1.00it/s]\\r")
say("Requesting API:   0%|     | 0/14 [00:00<?, ?it/s]\\r")
say("Requesting API:  50%|##   | 7/14 [00:01<00:01,  7.00it/s]\\r")
say("Requesting API: 100%|#####| 14/14 [00:02<00:00,  7.00it/s]\\n")
say("WARNING: Context length (9) > max_length (8). Left truncating context.\\n")
result = {"results": {}, "n-samples": {}, "samples": {place["model"]: [order]}}
print(json.dumps(result))
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], str]:
    """An interpreter that runs a program of the test's in place of the harness."""

    def made(program: str) -> str:
        (tmp_path / "program.py").write_text(program)
        return shell(tmp_path, f'"{sys.executable}" "{tmp_path}/program.py"')

    return made


def shell(folder: Path, command: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nexec {command}\n")
    path.chmod(0o755)
    return str(path)


def test_a_relative_interpreter(
    stand_in: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    relative = Path(stand_in(ASKS)).relative_to(tmp_path.parent)
    with Harness(str(relative), "") as harness:
        harness.prepare(ORDER)


def test_what_is_told_and_found(stand_in: Callable[[str], str]) -> None:
    seen: list[tuple[int, int]] = []
    with Harness(stand_in(ASKS), "") as harness:
        harness.prepare(ORDER)
        results = harness.evaluate(PLACE, lambda done, total: seen.append((done, total)))
    assert harness.cuts == [
        "WARNING: Context length (9) > max_length (8). Left truncating context."
    ]
    assert seen == [(0, 14), (7, 14), (14, 14)]
    (order,) = results.samples["m"]
    assert (order["tasks"], order["limit"], order["generation"]) == (["gsm8k_small"], 3, {})


def test_an_interpreter_without_the_harness_is_told(tmp_path: Path) -> None:
    bare = shell(tmp_path, f'"{sys.executable}" -S "$@"')
    with (
        Harness(bare, "") as harness,
        pytest.raises(CommandError, match=r'pip install "corral\[eval\]".*CORRAL_EVAL_PYTHON'),
    ):
        harness.prepare(ORDER)


def test_no_interpreter_is_told() -> None:
    with pytest.raises(CommandError, match="--python /gone/python: No such file"):
        Harness("/gone/python", "")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("raise SystemExit('out of luck')", "the harness died: out of luck"),
        ('print(\'{"refused": "no such task"}\')', r"^no such task$"),
    ],
)
def test_what_cannot_be_done_is_told(
    stand_in: Callable[[str], str], program: str, message: str
) -> None:
    with (
        Harness(stand_in(program), "") as harness,
        pytest.raises(CommandError, match=message),
    ):
        harness.prepare(ORDER)
