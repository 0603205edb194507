"""One run: all servers up, one of them busy at a time, rounds interleaved scenario by scenario."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

from bench import scenarios
from bench.load import LoadError
from bench.prompts import PromptSource
from bench.scenarios import Figures, Scenario
from bench.servers import Server, ServerError, Setup, Spec, running

# ggml's threads wait by spinning: a neighbour that takes a tenth of a core costs far more.
MAX_BUSY_ELSEWHERE = 0.1
MAX_TRIES = 3
MIB = 1 << 20


@dataclass(frozen=True)
class Measurement:
    """A scenario's figures on one server in one round, and the cores that others used meanwhile."""

    round: int
    server: str
    scenario: str
    figures: Figures
    busy_elsewhere: float


@dataclass(frozen=True)
class Failure:
    """A measurement that could not be taken, and why."""

    round: int
    server: str
    scenario: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a run measures."""

    specs: Sequence[Spec]
    scenarios: Sequence[Scenario]
    n_rounds: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """All that a run found."""

    measurements: list[Measurement]
    failures: list[Failure]


def _machine_seconds() -> float:
    """Processor time used on the whole machine since it started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def quietly(
    attempt: Callable[[], Figures], own_seconds: Callable[[], float]
) -> tuple[Figures, float]:
    """The figures of the least disturbed of up to three attempts, and the cores that others used.

    `own_seconds` counts the processor time of what is being measured, this process included.
    """
    tries: list[tuple[Figures, float]] = []
    while len(tries) < MAX_TRIES:
        start, machine, own = time.perf_counter(), _machine_seconds(), own_seconds()
        figures = attempt()
        elsewhere = (_machine_seconds() - machine) - (own_seconds() - own)
        tries.append((figures, max(0.0, elsewhere / (time.perf_counter() - start))))
        if tries[-1][1] <= MAX_BUSY_ELSEWHERE:
            break
    return min(tries, key=lambda tried: tried[1])


def _rotate(servers: Sequence[Server], by: int) -> Iterable[Server]:
    """Another server first each time, so that none has always the same neighbour."""
    by %= len(servers)
    return [*servers[by:], *servers[:by]]


class Run:
    """Takes the measurements of a plan and says what it is at."""

    def __init__(self, plan: Plan, setup: Setup, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._setup = setup
        self._say = say
        self._outcome = Outcome([], [])

    def run(self) -> Outcome:
        """Every scenario on every server, in every round."""
        for round_ in range(self._plan.n_rounds):
            with contextlib.ExitStack() as stack:
                self._round(round_, list(self._start(round_, stack)))
        return self._outcome

    def _start(self, round_: int, stack: contextlib.ExitStack) -> Iterable[Server]:
        for spec in self._plan.specs:
            self._say(f"round {round_ + 1}/{self._plan.n_rounds}: starting {spec.title}")
            try:
                server = stack.enter_context(running(spec, self._setup))
                scenarios.warm_up(server, self._prompts(round_, "warm-up"))
            except (ServerError, LoadError, OSError) as error:
                self._fail(round_, spec.name, "start", error)
            else:
                yield server

    def _round(self, round_: int, servers: list[Server]) -> None:
        for position, scenario in enumerate(self._plan.scenarios):
            for server in _rotate(servers, round_ + position) if servers else ():
                self._take(round_, scenario, server)
        for server in servers:
            figures = {scenarios.MEMORY: server.memory().alone / MIB}
            self._add(Measurement(round_, server.spec.name, "memory", figures, 0.0))

    def _take(self, round_: int, scenario: Scenario, server: Server) -> None:
        n_rounds, title = self._plan.n_rounds, server.spec.title
        self._say(f"round {round_ + 1}/{n_rounds}: {scenario.title} | {title}")
        try:
            prompts = self._prompts(round_, scenario.name)
            figures, elsewhere = quietly(
                lambda: scenario.run(server, prompts),
                lambda: server.cpu_seconds() + time.process_time(),
            )
        except (LoadError, OSError) as error:
            self._fail(round_, server.spec.name, scenario.name, error)
        else:
            self._add(Measurement(round_, server.spec.name, scenario.name, figures, elsewhere))

    def _prompts(self, round_: int, scenario: str) -> PromptSource:
        """The same prompts for every server, others in every round and scenario."""
        return PromptSource(f"{self._plan.seed} {round_} {scenario}")

    def _add(self, measurement: Measurement) -> None:
        self._outcome.measurements.append(measurement)

    def _fail(self, round_: int, server: str, scenario: str, error: Exception) -> None:
        self._outcome.failures.append(Failure(round_, server, scenario, str(error)))
