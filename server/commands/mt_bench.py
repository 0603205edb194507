"""`corral eval mt-bench`: questions of several turns, answered by a model and rated by a judge."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import httpx2
from pydantic import BaseModel, Field, ValidationError
from rich.markup import escape
from rich.table import Table

from server.commands.console import NOTHING, table
from server.commands.endpoint import Endpoint
from server.commands.failure import CommandError
from server.commands.harness import folder
from server.commands.judge import AskError, Judge, Judgement, ask

QUESTIONS = "mt_bench_small.jsonl"

TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""By category, as MT-bench has them."""

OTHER_TEMPERATURE = 0.7
ANSWER_S = 3600.0
ALL = "all"


class Question(BaseModel):
    """One line of MT-bench's own files; other keys are left alone."""

    question_id: int | str
    category: str
    turns: list[str] = Field(min_length=1)
    reference: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer; without a judgement if there is none to judge."""

    question_id: int | str
    category: str
    turn: int
    """From 1."""
    prompt: str
    answer: str | None
    error: str | None
    """Why there is no answer."""
    judgement: Judgement | None


@dataclass(frozen=True, slots=True)
class Score:
    """Of one category or all. None: nothing was rated."""

    category: str
    by_turn: tuple[float | None, ...]
    mean: float | None
    n_rated: int
    n_unrated: int
    """Answers that have no rating, or none in a form that could be read, and missing answers."""


def read_lines(path: Path) -> list[str]:
    """Of a file in UTF-8. Raises CommandError."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: not UTF-8 at byte {error.start:,}") from error


def read_questions(path: Path | None, limit: int | None) -> list[Question]:
    """Those of a file, else ours. Raises CommandError."""
    path = path or folder() / QUESTIONS
    found: list[Question] = []
    for n, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            found.append(Question.model_validate_json(line))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise CommandError(f"{path}, line {n}: {where} {fault['msg']}".strip()) from error
    if not found:
        raise CommandError(f"{path}: no questions")
    return found[:limit]


@dataclass(frozen=True, slots=True)
class Bench:
    """A model, its judge, and how many requests either gets at a time."""

    model: Endpoint
    judge: Judge
    concurrent: int = 4
    max_tokens: int = 1024

    def run(self, questions: Sequence[Question], on_step: Callable[[], None]) -> list[Turn]:
        """Answer and rate everything; `on_step` after each answer and each judgement."""
        return asyncio.run(self._run(questions, on_step))

    async def _run(self, questions: Sequence[Question], on_step: Callable[[], None]) -> list[Turn]:
        gate = asyncio.Semaphore(self.concurrent)
        async with httpx2.AsyncClient(timeout=ANSWER_S) as client:

            async def one(question: Question) -> list[Turn]:
                async with gate:
                    return await self._question(client, question, on_step)

            answered = await asyncio.gather(*(one(question) for question in questions))
        return [turn for turns in answered for turn in turns]

    async def _question(
        self, client: httpx2.AsyncClient, question: Question, on_step: Callable[[], None]
    ) -> list[Turn]:
        """All turns of one question; after one that is not answered, the rest is not asked."""
        temperature = TEMPERATURES.get(question.category, OTHER_TEMPERATURE)
        talk: list[Mapping[str, str]] = []
        done: list[Turn] = []
        error: str | None = None
        for n, prompt in enumerate(question.turns):
            answer: str | None = None
            judgement: Judgement | None = None
            talk.append({"role": "user", "content": prompt})
            if error is None:
                body = {"messages": talk, "temperature": temperature, "max_tokens": self.max_tokens}
                try:
                    answer = await ask(client, self.model, body)
                except AskError as failed:
                    error = str(failed)
            on_step()
            if answer is not None:
                talk.append({"role": "assistant", "content": answer})
                references = question.reference or []
                reference = references[n] if n < len(references) else None
                judgement = await self.judge.rate(client, talk, reference)
            on_step()
            known = (question.question_id, question.category, n + 1, prompt)
            done.append(Turn(*known, answer, error, judgement))
        return done


def scores(turns: Sequence[Turn]) -> list[Score]:
    """Of each category in the order in which they come, and of all."""
    names = [*dict.fromkeys(turn.category for turn in turns), ALL]
    n_turns = max(turn.turn for turn in turns)
    found: list[Score] = []
    for name in names:
        own = [turn for turn in turns if name in (ALL, turn.category)]
        rated = [(turn.turn, value) for turn in own if (value := _rating(turn)) is not None]
        by_turn = tuple(
            _mean([value for turn, value in rated if turn == n]) for n in range(1, n_turns + 1)
        )
        mean = _mean([value for _, value in rated])
        found.append(Score(name, by_turn, mean, len(rated), len(own) - len(rated)))
    return found


def _rating(turn: Turn) -> float | None:
    return turn.judgement.rating if turn.judgement else None


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def faults(turns: Sequence[Turn]) -> list[str]:
    """What was not rated and why, each reason once with its number."""
    unanswered = [turn.error for turn in turns if turn.error is not None]
    failed = [turn.judgement.error for turn in turns if turn.judgement and turn.judgement.error]
    unread = [
        turn
        for turn in turns
        if turn.judgement and turn.judgement.rating is None and not turn.judgement.error
    ]
    n, said = len(turns), list[str]()
    if unanswered:
        said.append(f"not answered: {len(unanswered)} of {n} ({unanswered[0]})")
    if failed:
        said.append(f"not judged: {len(failed)} of {n} ({failed[0]})")
    if unread:
        said.append(f"no rating can be read: {len(unread)} of {n} judgements; they do not count")
    return said


def report(found: Sequence[Score]) -> Table:
    """Ratings by category and turn."""
    shown = table()
    shown.add_column("Category", overflow="fold")
    for n in range(len(found[0].by_turn)):
        shown.add_column(f"Turn {n + 1}", justify="right")
    for title in ("Mean", "Rated", "Unrated"):
        shown.add_column(title, justify="right")
    for score in found:
        means = [
            NOTHING if mean is None else f"{mean:.2f}" for mean in (*score.by_turn, score.mean)
        ]
        shown.add_row(escape(score.category), *means, str(score.n_rated), str(score.n_unrated))
    return shown


def write(folder: Path, turns: Sequence[Turn], found: Sequence[Score]) -> None:
    """All answers and judgements, a line for each, and the scores. Raises CommandError."""
    answers = [
        {key: value for key, value in asdict(turn).items() if key != "judgement"} for turn in turns
    ]
    judgements = [
        {"question_id": turn.question_id, "turn": turn.turn, **asdict(turn.judgement)}
        for turn in turns
        if turn.judgement
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_lines(folder / "answers.jsonl", answers)
        _write_lines(folder / "judgements.jsonl", judgements)
        (folder / "results.json").write_text(
            json.dumps([asdict(score) for score in found], indent=2)
        )
    except OSError as error:
        raise CommandError(f"{folder}: {error.strerror}") from error


def _write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
