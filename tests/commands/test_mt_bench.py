"""mt-bench: its questions, what is asked of whom, and how ratings are counted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from server.commands.endpoint import Endpoint
from server.commands.failure import CommandError
from server.commands.judge import Judge, Judgement
from server.commands.mt_bench import (
    TEMPERATURES,
    Bench,
    Question,
    Score,
    Turn,
    faults,
    read_questions,
    scores,
    write,
)
from tests.commands.http_server import Asked, Said, answering


def turn(category: str, n: int, rating: float | None, error: str | None = None) -> Turn:
    judgement = None if error else Judgement("said", rating)
    return Turn(1, category, n, "asked", None if error else "answered", error, judgement)


def test_our_questions() -> None:
    questions = read_questions(None, None)
    assert {question.category for question in questions} == TEMPERATURES.keys()
    assert all(len(question.turns) == 2 for question in questions)
    with_reference = [question.category for question in questions if question.reference]
    assert with_reference == ["reasoning", "math", "coding", "extraction"]
    assert len(read_questions(None, 3)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no questions"),
        ("{", "line 1: "),
        ('{"question_id": 1, "category": "x"}', "line 1: turns Field required"),
        ('{"question_id": 1, "category": "x", "turns": []}', "turns List should have at least 1"),
        ('\n{"question_id": 1, "category": 5, "turns": ["a"]}', "line 2: category"),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(CommandError, match=message):
        read_questions(path, None)


def test_a_missing_file_and_no_utf_8_are_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        read_questions(tmp_path / "gone", None)
    (tmp_path / "q").write_bytes(b"ab\xff")
    with pytest.raises(CommandError, match="not UTF-8 at byte 2"):
        read_questions(tmp_path / "q", None)


def test_scores_leave_out_what_was_not_rated_and_count_it() -> None:
    turns = [
        turn("math", 1, 4),
        turn("math", 2, None),
        turn("stem", 1, 9),
        turn("stem", 2, None, "no room"),
    ]
    assert scores(turns) == [
        Score("math", (4.0, None), 4.0, 1, 1),
        Score("stem", (9.0, None), 9.0, 1, 1),
        Score("all", (6.5, None), 6.5, 2, 2),
    ]
    failed = Turn(1, "math", 1, "asked", "answered", None, Judgement("", None, "judge is out"))
    assert faults([*turns, failed]) == [
        "not answered: 1 of 5 (no room)",
        "not judged: 1 of 5 (judge is out)",
        "no rating can be read: 1 of 5 judgements; they do not count",
    ]
    assert faults(turns[:1]) == []


def scripted(asked: Asked) -> Said:
    """A model that repeats, but not what is too long, and a judge that likes the number 2."""
    text: str = asked.body["messages"][-1]["content"]
    if "too long" in text and asked.body["model"] == "model":
        return Said(400, {"error": {"message": "no room"}})
    if asked.body["model"] == "judge":
        text = "[[10]]" if "2" in text else "Hm."
    return Said(200, {"choices": [{"message": {"content": text}}]})


def test_what_is_asked_of_whom(tmp_path: Path) -> None:
    questions = [
        Question(question_id=1, category="coding", turns=["1", "2"], reference=["right"]),
        Question(question_id="b", category="puns", turns=["too long", "2"]),
    ]
    steps: list[None] = []
    with answering(scripted) as server:
        judge = Judge(Endpoint(server.url, "judge"))
        bench = Bench(Endpoint(server.url, "model"), judge, concurrent=2, max_tokens=77)
        turns = bench.run(questions, lambda: steps.append(None))
    assert len(steps) == 8
    bodies = server.bodies("/v1/chat/completions")
    mine: list[Mapping[str, Any]] = [body for body in bodies if body["model"] == "model"]
    coding = [body for body in mine if body["messages"][0]["content"] == "1"]
    assert [len(body["messages"]) for body in coding] == [1, 3]
    assert all((body["temperature"], body["max_tokens"]) == (0, 77) for body in coding)
    (pun,) = [body for body in mine if body not in coding]
    assert pun["temperature"] == 0.7
    judged = [body["messages"][1]["content"] for body in bodies if body["model"] == "judge"]
    assert ["right" in text for text in judged] == [True, False]
    assert [(it.question_id, it.turn, it.answer, it.error) for it in turns] == [
        (1, 1, "1", None),
        (1, 2, "2", None),
        ("b", 1, None, "no room"),
        ("b", 2, None, "no room"),
    ]
    assert scores(turns)[-1] == Score("all", (None, 10.0), 10.0, 1, 3)
    write(tmp_path / "new" / "out", turns, scores(turns))
    lines = (tmp_path / "new/out/answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["error"] for line in lines] == [None, None, "no room", "no room"]
    lines = (tmp_path / "new/out/judgements.jsonl").read_text().splitlines()
    assert [json.loads(line)["rating"] for line in lines] == [None, 10.0]
    with pytest.raises(CommandError, match="Not a directory"):
        write(tmp_path / "new/out/answers.jsonl" / "x", turns, scores(turns))
