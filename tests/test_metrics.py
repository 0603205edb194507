"""What is counted, and under which name."""

import re
from collections.abc import Iterator

import pytest

from server import metrics
from server.metrics import Metrics


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(metrics, "perf_counter", lambda: now[0])
    yield now


def value(subject: Metrics, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (.*)$", subject.exposition().decode(), re.MULTILINE)
    assert found, sample
    return float(found[1])


def test_requests() -> None:
    subject = Metrics(lambda: {})
    subject.count_request("m", "/completions", 200)
    subject.count_request("m", "/completions", 200)
    sample = 'corral_requests_total{endpoint="/completions",model="m",status="200"}'
    assert value(subject, sample) == 2


def test_tokens() -> None:
    subject = Metrics(lambda: {})
    subject.count_tokens("m", prompt=7, cached=3, completion=5)
    subject.count_tokens("m", prompt=7, cached=0, completion=5)
    assert value(subject, 'corral_prompt_tokens_total{model="m"}') == 14
    assert value(subject, 'corral_cached_tokens_total{model="m"}') == 3
    assert value(subject, 'corral_completion_tokens_total{model="m"}') == 10


def test_drafts() -> None:
    subject = Metrics(lambda: {})
    subject.count_drafts("m", drafted=9, accepted=4)
    subject.count_drafts("m", drafted=0, accepted=0)
    assert value(subject, 'corral_drafted_tokens_total{model="m"}') == 9
    assert value(subject, 'corral_accepted_tokens_total{model="m"}') == 4


def test_loads_are_asked_at_each_scrape() -> None:
    loads = {"m": (1, 2)}
    subject = Metrics(lambda: loads)
    assert value(subject, 'corral_requests_running{model="m"}') == 1
    loads["m"] = (3, 4)
    assert value(subject, 'corral_requests_running{model="m"}') == 3
    assert value(subject, 'corral_requests_waiting{model="m"}') == 4


def test_pace(clock: list[float]) -> None:
    subject = Metrics(lambda: {})
    pace = subject.pace("m", arrived=98.0)
    pace.tokens(0)
    pace.tokens(1)
    clock[0] += 0.5
    pace.tokens(0)
    pace.tokens(2)
    first, inter = "corral_time_to_first_token_seconds", "corral_inter_token_seconds"
    assert value(subject, first + '_sum{model="m"}') == 2
    assert value(subject, first + '_count{model="m"}') == 1
    assert value(subject, inter + '_sum{model="m"}') == 0.25
    assert value(subject, inter + '_count{model="m"}') == 1


def test_apps_do_not_share_counts() -> None:
    one, other = Metrics(lambda: {}), Metrics(lambda: {})
    one.count_tokens("m", 1, 1, 1)
    assert "model" not in other.exposition().decode()
