"""lm-evaluation-harness in a process of its own: what it is told, and what it finds."""

import os
import re
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BufferedReader
from json import dumps
from pathlib import Path
from threading import Thread
from typing import IO, Self, cast

from pydantic import BaseModel, Field, ValidationError

from server.commands.endpoint import Endpoint
from server.commands.failure import CommandError

PACKAGE = Path(__file__).parents[1]
FOLDERS = (PACKAGE / "evals", PACKAGE.parent / "evals")
"""Where tasks lie: in a wheel, in a checkout."""

ADVANCE = re.compile(r"([^:|]*?):?\s*\d+%\|[^|]*\| (\d+)/(\d+) \[")
"""A line of tqdm's, with a total."""

REQUESTS = "Requesting API"
CUT = re.compile(r".*truncat.*", re.IGNORECASE)

STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is evaluated, and how. None: as the task has it."""

    tasks: tuple[str, ...]
    chat: bool = False
    concurrent: int = 4
    limit: int | None = None
    num_fewshot: int | None = None
    include_path: str | None = None
    data: str | None = None
    """A file that takes the place of the questions of one of our tasks."""
    generation: Mapping[str, object] | None = None
    """What is set over the task's own, by the harness's names."""


class Samples(BaseModel):
    """How many questions there are, and how many were asked."""

    original: int
    effective: int


class Results(BaseModel):
    """The harness's own."""

    results: dict[str, dict[str, object]]
    n_samples: dict[str, Samples] = Field(alias="n-samples")
    n_shot: dict[str, int] = Field(default={}, alias="n-shot")
    samples: dict[str, list[dict[str, object]]] = {}


class _Refused(BaseModel):
    refused: str


def folder() -> Path:
    """Of our tasks and their data."""
    return next(folder for folder in FOLDERS if folder.is_dir())


class Harness:
    """A running harness, ended on leaving the context."""

    def __init__(self, python: str, key: str):
        """Started by an interpreter that has it. Raises CommandError if that is none."""
        environment = {**os.environ, "OPENAI_API_KEY": key or "none", "PYTHONUNBUFFERED": "1"}
        try:
            self._process = subprocess.Popen(
                # Files of tasks are relative to where it runs; the interpreter is to where we run.
                (str(Path(python).absolute()) if os.sep in python else python, "harness.py"),
                cwd=folder(),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C is ours to act upon.
                start_new_session=True,
            )
        except OSError as error:
            raise CommandError(f"--python {python}: {error.strerror}") from error
        self._python = python
        self._log = _Log(self._process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        self._log.close()

    @property
    def cuts(self) -> Sequence[str]:
        """What the harness said about prompts that it had to cut."""
        return [line for line in self._log.lines if CUT.fullmatch(line)]

    def prepare(self, order: Order) -> None:
        """Find the tasks. Raises CommandError."""
        self._ask({**asdict(order), "generation": order.generation or {}})

    def evaluate(self, endpoint: Endpoint, on_advance: Callable[[int, int], None]) -> Results:
        """Ask all questions; how many of how many are answered is told. Raises CommandError."""
        self._log.on_advance = on_advance
        answer = self._ask({"url": endpoint.url, "model": endpoint.model})
        return Results.model_validate_json(answer)

    def _ask(self, said: Mapping[str, object]) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(dumps(said).encode() + b"\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._process.wait()
            self._log.close()
            raise CommandError(self._why())
        with suppress(ValidationError):
            raise CommandError(_Refused.model_validate_json(answer).refused)
        return answer

    def _why(self) -> str:
        """Of a process that died."""
        lines = [line for line in self._log.lines if line.strip()]
        if any(re.match("ModuleNotFoundError: No module named '(lm_eval|requests)", line)
               for line in lines):  # fmt: skip
            return (
                'lm-evaluation-harness is not installed: pip install "corral[eval]", or name an '
                f"interpreter that has it with --python or CORRAL_EVAL_PYTHON (not {self._python})"
            )
        return "the harness died: " + "\n".join(lines[-5:])


class _Log:
    """What a process writes to its standard error, tqdm's bars apart."""

    def __init__(self, file: IO[bytes] | None):
        assert file is not None
        self.lines = deque[str](maxlen=1000)
        self.on_advance: Callable[[int, int], None] | None = None
        self._file = cast("BufferedReader", file)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Wait for the last line."""
        self._reader.join(STOP_S)

    def _read(self) -> None:
        with self._file:
            for line in _lines(self._file):
                if (found := ADVANCE.match(line)) is None:
                    self.lines.append(line)
                elif self.on_advance is not None and found[1].strip() == REQUESTS:
                    self.on_advance(int(found[2]), int(found[3]))


def _lines(file: BufferedReader) -> Iterator[str]:
    """Lines as they come, which end with a line feed or a carriage return."""
    rest = b""
    while piece := file.read1(2**16):
        *whole, rest = re.split(rb"[\r\n]", rest + piece)
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")
