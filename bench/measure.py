"""One run: all servers up, one of them busy at a time, rounds interleaved scenario by scenario."""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

import psutil

from bench import batched_bench, scenarios
from bench.load import LoadError
from bench.prompts import PromptSource
from bench.scenarios import TOKENS_PER_S, Figures, Scenario, Shape
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
    with_ceilings: bool

    def prompts(self, round_: int, scenario: str) -> PromptSource:
        """The same prompts for every server, others in every round and scenario."""
        return PromptSource(f"{self.seed} {round_} {scenario}")


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


def own_seconds() -> float:
    """Processor time of this process and of the children that it has waited for."""
    return sum(os.times()[:4])


class Recorder:
    """Keeps one measurement after another. One that fails is noted, and the run goes on."""

    def __init__(self, n_rounds: int, say: Callable[[str], None]) -> None:
        self.outcome = Outcome([], [])
        self._n_rounds = n_rounds
        self._say = say

    def say(self, round_: int, what: str) -> None:
        """Tell what the run is at."""
        self._say(f"round {round_ + 1}/{self._n_rounds}: {what}")

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement taken elsewhere."""
        self.outcome.measurements.append(measurement)

    def take(
        self,
        round_: int,
        scenario: str,
        server: str,
        attempt: Callable[[], Figures],
        own_seconds: Callable[[], float],
    ) -> None:
        """Measure quietly."""
        self.say(round_, f"{scenario} | {server}")
        with self.noting(round_, scenario, server):
            figures, elsewhere = quietly(attempt, own_seconds)
            self.add(Measurement(round_, server, scenario, figures, elsewhere))

    @contextlib.contextmanager
    def noting(self, round_: int, scenario: str, server: str) -> Generator[None]:
        """What fails in here is noted as a failure of this server."""
        try:
            yield
        except (ServerError, LoadError, batched_bench.BatchedBenchError, OSError) as error:
            self.outcome.failures.append(Failure(round_, server, scenario, str(error)))


def _rotate(servers: Sequence[Server], by: int) -> Iterable[Server]:
    """Another server first each time, so that none has always the same neighbour."""
    by %= len(servers)
    return [*servers[by:], *servers[:by]]


class Run:
    """Takes the measurements of a plan."""

    def __init__(self, plan: Plan, setup: Setup, recorder: Recorder) -> None:
        self._plan = plan
        self._setup = setup
        self._recorder = recorder

    def run(self) -> None:
        """Every scenario on every server, in every round."""
        for round_ in range(self._plan.n_rounds):
            with contextlib.ExitStack() as stack:
                self._round(round_, list(self._start(round_, stack)))

    def _start(self, round_: int, stack: contextlib.ExitStack) -> Iterable[Server]:
        for spec in self._plan.specs:
            self._recorder.say(round_, f"starting {spec.title}")
            with self._recorder.noting(round_, "start", spec.name):
                server = stack.enter_context(running(spec, self._setup))
                scenarios.warm_up(server, self._plan.prompts(round_, "warm-up"))
                yield server

    def _round(self, round_: int, servers: list[Server]) -> None:
        for position, scenario in enumerate(self._plan.scenarios):
            for server in _rotate(servers, round_ + position) if servers else ():
                self._take(round_, scenario, server)
            if self._plan.with_ceilings and scenario.shape is not None:
                self._take_ceiling(round_, scenario.name, scenario.shape)
        for server in servers:
            figures = {scenarios.MEMORY: server.memory().alone / MIB}
            self._recorder.add(Measurement(round_, server.spec.name, "memory", figures, 0.0))

    def _take(self, round_: int, scenario: Scenario, server: Server) -> None:
        prompts = self._plan.prompts(round_, scenario.name)
        self._recorder.take(
            round_,
            scenario.name,
            server.spec.name,
            lambda: scenario.run(server, prompts),
            lambda: server.cpu_seconds() + time.process_time(),
        )

    def _take_ceiling(self, round_: int, scenario: str, shape: Shape) -> None:
        def attempt() -> Figures:
            return {TOKENS_PER_S: batched_bench.tokens_per_s(self._setup, shape)}

        self._recorder.take(round_, scenario, batched_bench.NAME, attempt, own_seconds)
