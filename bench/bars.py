"""What Corral must reach: the ratio ours / peer, for each scenario, metric and peer."""

from dataclasses import dataclass

from bench import estimates
from bench.scenarios import (
    ANSWER_S,
    FIRST_SPEED,
    FIRST_TOKEN_P95,
    FIRST_TOKEN_S,
    LIST_S,
    LOWER_IS_BETTER,
    MEMORY,
    SECOND_SPEED,
    START_S,
    SWAP_S,
    TOKENS_PER_S,
    WORST_GAP,
)


@dataclass(frozen=True)
class Bar:
    """A ratio ours / peer that is a floor, or a ceiling where lower is better."""

    scenario: str
    metric: str
    peer: str
    ratio: float
    most: float | None = None
    """Where too much is as wrong as too little: the ratio must not be above this."""

    @property
    def is_ceiling(self) -> bool:
        """Whether the ratio must stay below the bar."""
        return self.metric in LOWER_IS_BETTER

    @property
    def edges(self) -> tuple[float, ...]:
        """The ratios at which it begins or ends."""
        return (self.ratio,) if self.most is None else (self.ratio, self.most)

    def holds(self, ratio: float) -> bool:
        """Whether a measured ratio reaches the bar."""
        if self.most is not None:
            return self.ratio <= ratio <= self.most
        return ratio <= self.ratio if self.is_ceiling else ratio >= self.ratio

    def __str__(self) -> str:
        if self.most is not None:
            return f"{self.ratio:g} to {self.most:g}"
        return f"{'<=' if self.is_ceiling else '>='} {self.ratio:g}"


BARS = (
    Bar("one", TOKENS_PER_S, "best", 1.0),
    Bar("one", TOKENS_PER_S, "default", 1.0),
    Bar("one", TOKENS_PER_S, "example", 1.3),
    Bar("four", TOKENS_PER_S, "best", 1.0),
    Bar("four", TOKENS_PER_S, "default", 1.05),
    Bar("four", TOKENS_PER_S, "example", 1.3),
    Bar("sixteen", TOKENS_PER_S, "best", 1.05),
    Bar("sixteen", TOKENS_PER_S, "default", 1.3),
    Bar("sixteen", TOKENS_PER_S, "example", 1.1),
    Bar("sampled", TOKENS_PER_S, "best", 1.05),
    Bar("sampled", TOKENS_PER_S, "default", 1.2),
    Bar("shared", TOKENS_PER_S, "best", 2.5),
    Bar("shared", TOKENS_PER_S, "default", 3.5),
    Bar("shared", TOKENS_PER_S, "example", 2.5),
    Bar("shared", FIRST_TOKEN_P95, "best", 0.3),
    Bar("long", TOKENS_PER_S, "best", 1.0),
    Bar("long", TOKENS_PER_S, "default", 1.25),
    Bar("stall", WORST_GAP, "best", 0.15),
    Bar("stall", WORST_GAP, "default", 0.15),
    Bar("memory", MEMORY, "best", 1.0),
    Bar("memory", MEMORY, "default", 1.0),
    Bar("json-1", ANSWER_S, "best", 0.5),
    Bar("json-8", ANSWER_S, "best", 0.5),
    Bar("json-1", ANSWER_S, "default", 0.5),
    Bar("json-8", ANSWER_S, "default", 0.5),
    Bar("beside", TOKENS_PER_S, "plain text", 0.95),
    Bar("forks", ANSWER_S, "separate", 0.5),
    Bar("turns", FIRST_SPEED, "alone", 0.95),
    Bar("turns", SECOND_SPEED, "alone", 0.95),
    Bar("swap", SWAP_S, "router", 0.8),
    Bar("cold", FIRST_TOKEN_S, "best", 1.1),
    Bar("cold", FIRST_TOKEN_S, "default", 1.1),
    Bar("catalogue", START_S, "limit", 1.0),
    Bar("catalogue", LIST_S, "limit", 1.0),
    Bar("decode-1", TOKENS_PER_S, "batched-bench", 0.95),
    Bar("decode-16", TOKENS_PER_S, "batched-bench", 0.95),
    *(
        Bar(estimates.scenario(quant), estimates.metric(n_ctx), estimates.MEASURED, 0.9, most=1.1)
        for quant in estimates.QUANTS
        for n_ctx in estimates.CONTEXTS
    ),
)


def bar_for(scenario: str, metric: str, peer: str) -> Bar | None:
    """The bar of a comparison, if it has one."""
    wanted = (scenario, metric, peer)
    return next((bar for bar in BARS if (bar.scenario, bar.metric, bar.peer) == wanted), None)
