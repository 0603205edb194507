"""Metrics: Prometheus counters, gauges and histograms, in a registry of their own."""

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
INTER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

Loads = Callable[[], Mapping[str, tuple[int, int]]]
"""Requests (running, waiting) by loaded model."""


class _LoadCollector(Collector):
    """Gauges that are read when somebody asks."""

    def __init__(self, loads: Loads):
        self._loads = loads

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily(
            "corral_requests_running", "Requests that hold a slot", labels=["model"]
        )
        waiting = GaugeMetricFamily(
            "corral_requests_waiting", "Requests that wait for a slot", labels=["model"]
        )
        for model, (n_running, n_waiting) in self._loads().items():
            running.add_metric([model], n_running)
            waiting.add_metric([model], n_waiting)
        yield running
        yield waiting


class Metrics:
    """Everything that is counted. Owned by the app; `loads` is asked at each scrape."""

    def __init__(self, loads: Loads):
        self._registry = CollectorRegistry()
        self._registry.register(_LoadCollector(loads))
        self._requests = self._counter(
            "requests", "Answered requests", ("model", "endpoint", "status")
        )
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts")
        self._cached = self._counter("cached_tokens", "Prompt tokens that were not computed again")
        self._completion = self._counter("completion_tokens", "Generated tokens")
        self._drafted = self._counter("drafted_tokens", "Tokens that were guessed and checked")
        self._accepted = self._counter("accepted_tokens", "Of these, the ones that were right")
        self._first = self._histogram(
            "time_to_first_token", "From the request's arrival to its first token", FIRST_TOKEN_S
        )
        self._inter = self._histogram(
            "inter_token", "Between two tokens of one choice", INTER_TOKEN_S
        )

    def count_request(self, model: str, endpoint: str, status: int) -> None:
        """One request was answered; `model` is empty where none was chosen."""
        self._requests.labels(model, endpoint, str(status)).inc()

    def count_tokens(self, model: str, prompt: int, cached: int, completion: int) -> None:
        """The usage of one answered request."""
        self._prompt.labels(model).inc(prompt)
        self._cached.labels(model).inc(cached)
        self._completion.labels(model).inc(completion)

    def count_drafts(self, model: str, drafted: int, accepted: int) -> None:
        """The guesses for one answered request."""
        self._drafted.labels(model).inc(drafted)
        self._accepted.labels(model).inc(accepted)

    def pace(self, model: str, arrived: float) -> "Pace":
        """A clock for one choice of a request that arrived at `perf_counter()` time `arrived`."""
        return Pace(self._first.labels(model).observe, self._inter.labels(model).observe, arrived)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(
        self, name: str, description: str, labels: tuple[str, ...] = ("model",)
    ) -> Counter:
        return Counter(f"corral_{name}", description, labels, registry=self._registry)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"corral_{name}_seconds",
            description,
            ("model",),
            buckets=buckets,
            registry=self._registry,
        )


class Pace:
    """Times the tokens of one choice. Called for each delta, so it only does what it must."""

    __slots__ = ("_first", "_inter", "_last", "_started")

    def __init__(
        self, first: Callable[[float], None], inter: Callable[[float], None], arrived: float
    ):
        self._first = first
        self._inter = inter
        self._last = arrived
        self._started = False

    def tokens(self, n: int) -> None:
        """`n` more tokens are here."""
        if n == 0:
            return
        now = perf_counter()
        if self._started:
            self._inter((now - self._last) / n)
        else:
            self._started = True
            self._first(now - self._last)
        self._last = now
