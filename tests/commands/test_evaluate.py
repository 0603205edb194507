"""`corral eval` without the harness: data, figures, files. With it: tests/third_party."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from server.commands.endpoint import Endpoint
from server.commands.evaluate import Judging, Row, check_data, report, rows, write
from server.commands.failure import CommandError
from server.commands.harness import Results, folder
from server.commands.judge import Judge
from server.config import ConfigError

RESULTS = Results.model_validate(
    {
        "results": {
            "small": {
                "alias": "small",
                "exact_match,strict-match": 0.25,
                "exact_match_stderr,strict-match": 0.125,
                "acc,none": 1,
                "acc_stderr,none": "N/A",
            },
            "both": {"alias": "both", "acc,none": 0.5, "acc_stderr,none": 0.1},
        },
        "n-samples": {"small": {"original": 25, "effective": 4}},
        "n-shot": {"small": 5},
        "samples": {"small": [{"doc_id": 0, "resps": [["é"]]}]},
    }
)


def test_rows() -> None:
    assert rows(RESULTS) == [
        Row("small", "exact_match", "strict-match", 0.25, 0.125, 5, 4),
        Row("small", "acc", "none", 1.0, None, 5, 4),
        Row("both", "acc", "none", 0.5, 0.1, None, None),
    ]


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=120).print(report(rows(RESULTS)))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == [
        "small",
        "exact_match",
        "strict-match",
        "0.2500",
        *["±", "0.1250", "5", "4"],
    ]
    assert lines[2] == ["small", "acc", "-", "1.0000", "-", "5", "4"]


def test_files(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b", RESULTS)
    assert json.loads((tmp_path / "a/b/results.json").read_text())[0]["value"] == 0.25
    (line,) = (tmp_path / "a/b/samples_small.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["resps"] == [["é"]]
    with pytest.raises(CommandError, match="Not a directory"):
        write(tmp_path / "a/b/results.json/c", RESULTS)


def test_our_data_has_its_own_form() -> None:
    check_data(("gsm8k_small",), folder() / "gsm8k_small.jsonl")
    check_data(("gsm8k_card",), folder() / "gsm8k_few_shot.jsonl")
    check_data(("truthful_small",), folder() / "truthful_small.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no questions"),
        ('{"question": "a", "answer": "#### 1"}\nnonsense', "line 2: not JSON"),
        ('{"question": "a"}', "line 1: answer is missing"),
        ("[]", "line 1: question, answer is missing"),
    ],
)
def test_bad_data_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    with pytest.raises(CommandError, match=message):
        check_data(("gsm8k_small",), path)


@pytest.mark.parametrize("tasks", [("gsm8k",), ("gsm8k_small", "gsm8k_card"), ("mmlu",)])
def test_data_goes_with_one_of_our_tasks(tasks: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--data goes with one of gsm8k_card, gsm8k_small, tru"):
        check_data(tasks, folder() / "gsm8k_small.jsonl")


def test_unreadable_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        check_data(("gsm8k_small",), tmp_path / "gone")
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(CommandError, match="not UTF-8"):
        check_data(("gsm8k_small",), tmp_path / "x")


def test_who_judges() -> None:
    asked = Endpoint("http://here", "model", "mine")
    assert Judging("j").judge(asked) == Judge(Endpoint("http://here", "j", "mine"))
    elsewhere = Judging("j", "http://there/v1/", "theirs", enforced=True)
    assert elsewhere.judge(asked) == Judge(Endpoint("http://there", "j", "theirs"), True)
