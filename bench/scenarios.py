"""The workloads: what is sent to a server, and which numbers come out of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.load import Answer, LoadError, LoadGenerator, Request
from bench.prompts import PromptSource
from bench.servers import GREEDY, Server

TOKENS_PER_S = "tokens/s"
FIRST_TOKEN_P95 = "first token p95, s"
WORST_GAP = "worst gap, s"
MEMORY = "memory, MiB"
ANSWER_S = "answer, s"
FIRST_SPEED = "tokens/s, first model"
SECOND_SPEED = "tokens/s, second model"
SWAP_S = "swap, s"
FIRST_TOKEN_S = "first token, s"
FIRST_START_S = "first start, s"
START_S = "start, s"
LIST_S = "list, s"
LOWER_IS_BETTER = frozenset(
    {
        *(FIRST_TOKEN_P95, WORST_GAP, MEMORY, ANSWER_S),
        *(SWAP_S, FIRST_TOKEN_S, FIRST_START_S, START_S, LIST_S),
    }
)
N_WARM_CLIENTS = 16
SAMPLED = {"temperature": 0.8, "top_p": 0.95, "repeat_penalty": 1.1}

Figures = dict[str, float]


Workload = Callable[[Server, PromptSource], Figures]


@dataclass(frozen=True)
class Shape:
    """Clients that each send so many requests, with lengths in tokens.

    All prompts begin with the same `n_shared` tokens and go on with `n_own` others.
    """

    n_clients: int
    n_each: int
    n_own: int
    n_answer: int
    n_shared: int = 0

    @property
    def n_requests(self) -> int:
        """Of all clients."""
        return self.n_clients * self.n_each


@dataclass(frozen=True)
class Scenario:
    """A workload with a name, and those of its figures that are reported.

    `shape` says it in numbers, where numbers can.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    workload: Workload
    shape: Shape | None = None

    def run(self, server: Server, prompts: PromptSource) -> Figures:
        """Send the workload once; its figures by metric."""
        figures = self.workload(server, prompts)
        return {metric: figures[metric] for metric in self.metrics}


def _figures(answers: Sequence[Answer]) -> Figures:
    """Output tokens per second of the whole, and the 95th percentile of the first token's wait."""
    start = min(answer.sent for answer in answers)
    end = max(answer.done for answer in answers)
    waits = sorted(answer.first_token_s for answer in answers)
    return {
        TOKENS_PER_S: sum(answer.request.n_tokens for answer in answers) / (end - start),
        FIRST_TOKEN_P95: waits[math.ceil(0.95 * len(waits)) - 1],
    }


def _deal(requests: Sequence[Request], n_clients: int) -> list[Sequence[Request]]:
    return [requests[client::n_clients] for client in range(n_clients)]


def _answer_all(shape: Shape, sampling: Mapping[str, float]) -> Workload:
    def run(server: Server, prompts: PromptSource) -> Figures:
        texts = prompts.of(shape.n_requests, shape.n_shared, shape.n_own)
        requests = [server.request(text, shape.n_answer, sampling) for text in texts]
        return _figures(LoadGenerator(server.address).run(_deal(requests, shape.n_clients)))

    return run


def _stall(server: Server, prompts: PromptSource) -> Figures:
    """The longest silence of any of four streams while three long prompts come in one by one."""
    streams = [[server.request(prompts.distinct(64), 384)] for _ in range(4)]
    late = [server.request(prompts.distinct(1500), 8) for _ in range(3)]
    waiting = [late]

    def add_late(load: LoadGenerator) -> None:
        if waiting and load.all_started(8):
            load.add(waiting.pop())

    answers = LoadGenerator(server.address).run(streams, add_late)
    newcomers = [answer for answer in answers if answer.request in late]
    start = min(answer.sent for answer in newcomers)
    end = max(answer.done for answer in newcomers)
    gaps = [
        after - before
        for answer in answers
        if answer not in newcomers
        for before, after in pairwise(answer.arrivals)
        if after > start and before < end
    ]
    if not gaps:
        raise LoadError("the streams ended before the long prompts arrived")
    return {WORST_GAP: max(gaps)}


def warm_up(server: Server, prompts: PromptSource) -> None:
    """A few requests alone and side by side, so that buffers are made and pages are touched."""
    for n_clients in (1, N_WARM_CLIENTS):
        requests = [[server.request(prompts.distinct(64), 16)] for _ in range(n_clients)]
        LoadGenerator(server.address).run(requests)


def _speed(
    name: str, title: str, shape: Shape, *more_metrics: str, sampling: Mapping[str, float] = GREEDY
) -> Scenario:
    """How fast a shape is answered."""
    metrics = (TOKENS_PER_S, *more_metrics)
    return Scenario(name, title, metrics, _answer_all(shape, sampling), shape)


SCENARIOS = (
    _speed("one", "1 client", Shape(1, 6, 64, 64)),
    _speed("four", "4 clients", Shape(4, 4, 64, 64)),
    _speed("sixteen", "16 clients", Shape(16, 2, 64, 64)),
    _speed("sampled", "8 clients, sampled", Shape(8, 2, 64, 64), sampling=SAMPLED),
    _speed(
        "shared",
        "8 clients, 16 requests, 800 shared words",
        Shape(8, 2, 16, 32, n_shared=800),
        FIRST_TOKEN_P95,
    ),
    _speed("long", "4 clients, 900-word prompts, 128 out", Shape(4, 1, 900, 128)),
    Scenario("stall", "4 streams while 1,500-token prompts arrive", (WORST_GAP,), _stall),
)
