"""What Corral does beyond plain text: structured answers against llama-server, and itself.

json-1, json-8   seconds to a complete answer that is valid by a nested schema
beside           a plain stream's speed beside an answer by schema / beside one without
forks            n=8 on one prompt / eight requests that share nothing
"""

import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import jsonschema

from bench.ask import Told, ask, ask_together
from bench.load import Address, LoadError, LoadGenerator
from bench.measure import Plan, Recorder
from bench.prompts import PromptSource
from bench.scenarios import ANSWER_S, TOKENS_PER_S, Figures, Workload, warm_up
from bench.servers import CORRAL, EXAMPLE, Server, Setup, running

PLAIN = "plain text"
SEPARATE = "separate"
N_ANSWERS = 6
N_FORKS = 8
MAX_TOKENS = 1000

_WORD = {"type": "string", "pattern": "^[A-Z][a-z]{2,11}$"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {
            "type": "object",
            "properties": {"first": _WORD, "last": _WORD},
            "required": ["first", "last"],
            "additionalProperties": False,
        },
        "role": {"type": "string", "enum": ["engineer", "teacher", "doctor", "farmer"]},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string", "maxLength": 24},
                "city": _WORD,
                "postcode": {"type": "string", "pattern": "^[0-9]{5}$"},
                "country": {"type": "string", "enum": ["France", "Japan", "Kenya", "Peru"]},
            },
            "required": ["street", "city", "postcode", "country"],
            "additionalProperties": False,
        },
        "languages": {"type": "array", "items": _WORD, "minItems": 2, "maxItems": 3},
        "projects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "maxLength": 30},
                    "status": {"type": "string", "enum": ["planned", "running", "finished"]},
                    "is_public": {"type": "boolean"},
                },
                "required": ["title", "status", "is_public"],
                "additionalProperties": False,
            },
            "minItems": 2,
            "maxItems": 2,
        },
    },
    "required": ["name", "role", "address", "languages", "projects"],
    "additionalProperties": False,
}


def _by_schema(prompts: PromptSource) -> dict[str, object]:
    """A chat request for an answer by the schema."""
    text = f"Invent a person as JSON. Let these words inspire you: {prompts.distinct(16)}."
    return {
        "model": "bench",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "person", "strict": True, "schema": SCHEMA},
        },
    }


def _check(told: Told) -> None:
    """Raises LoadError unless the answer is complete and valid."""
    choice = told.body["choices"][0]
    content = choice["message"]["content"]
    if choice["finish_reason"] != "stop":
        raise LoadError(f"not complete after {MAX_TOKENS} tokens: {content[-200:]!r}")
    try:
        jsonschema.validate(json.loads(content), SCHEMA)
    except (ValueError, jsonschema.ValidationError) as error:
        raise LoadError(f"not valid: {error}") from error


def _answers(server: Server, prompts: PromptSource, n_clients: int) -> Figures:
    """Seconds to a complete valid answer: the mean over all."""
    taken: list[float] = []
    while len(taken) < N_ANSWERS:
        payloads = [_by_schema(prompts) for _ in range(n_clients)]
        for told in ask_together(server.address, "/v1/chat/completions", payloads):
            _check(told)
            taken.append(told.seconds)
    return {ANSWER_S: statistics.mean(taken)}


class _Company:
    """Asks for one answer after another until told to stop."""

    def __init__(self, address: Address, path: str, payload: Callable[[], object]):
        self._address, self._path, self._payload = address, path, payload
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            ask(self._address, self._path, self._payload())


def _beside(server: Server, prompts: PromptSource, by_schema: bool) -> Figures:
    """Tokens per second of four plain streams while a fifth client keeps asking."""
    path = "/v1/chat/completions" if by_schema else "/v1/completions"

    def payload() -> object:
        if by_schema:
            return _by_schema(prompts)
        fields = server.request(prompts.distinct(60), 100).payload
        return {**fields, "stream": False, "stream_options": None}

    streams = [[server.request(prompts.distinct(64), 256)] for _ in range(4)]
    with _Company(server.address, path, payload):
        answers = LoadGenerator(server.address).run(streams)
    start = max(answer.arrivals[0] for answer in answers)
    end = min(answer.done for answer in answers)
    n = sum(sum(start < at <= end for at in answer.arrivals) for answer in answers)
    return {TOKENS_PER_S: n / (end - start)}


def _forks(server: Server, prompts: PromptSource, separate: bool) -> Figures:
    """Seconds until eight answers of 32 tokens to a prompt of 500 tokens are there."""
    common = {"model": "bench", "max_tokens": 32, "temperature": 0.8, "ignore_eos": True}
    prompt = prompts.distinct(500)
    start = time.perf_counter()
    if separate:
        payloads = [{**common, "prompt": prompt, "cache_prompt": False}] * N_FORKS
    else:
        payloads = [{**common, "prompt": prompt, "n": N_FORKS}]
    ask_together(server.address, "/v1/completions", payloads)
    return {ANSWER_S: time.perf_counter() - start}


def measure(setup: Setup, plan: Plan, recorder: Recorder) -> None:
    """All of it, interleaved."""
    for round_ in range(plan.n_rounds):
        with recorder.noting(round_, "exact", "all"), ExitStack() as stack:
            servers = [
                stack.enter_context(running(spec, setup))
                for spec in plan.specs
                if spec.name != EXAMPLE
            ]
            for server in servers:
                warm_up(server, plan.prompts(round_, "warm-up"))
            _round(servers, _Taker(round_, plan, recorder))


@dataclass(frozen=True)
class _Taker:
    """Takes one round's measurements, with prompts of each one's own."""

    round: int
    plan: Plan
    recorder: Recorder

    def take(self, scenario: str, as_server: str, server: Server, run: Workload) -> None:
        prompts = self.plan.prompts(self.round, f"{scenario} {as_server}")
        self.recorder.take(
            self.round,
            scenario,
            as_server,
            lambda: run(server, prompts),
            lambda: server.cpu_seconds() + time.process_time(),
        )


def _round(servers: Sequence[Server], taker: _Taker) -> None:
    for n_clients in (1, 8):
        for server in servers:
            taker.take(
                f"json-{n_clients}",
                server.spec.name,
                server,
                lambda s, p, n=n_clients: _answers(s, p, n),
            )
    ours = next(server for server in servers if server.spec.name == CORRAL)
    for name, by_schema in ((CORRAL, True), (PLAIN, False)):
        taker.take("beside", name, ours, lambda s, p, b=by_schema: _beside(s, p, b))
    for name, separate in ((CORRAL, False), (SEPARATE, True)):
        taker.take("forks", name, ours, lambda s, p, a=separate: _forks(s, p, a))
