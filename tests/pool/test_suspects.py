"""Who is refused after how many deaths."""

import pytest

from server.errors import RequestRefused
from server.ipc import GenerateRequest, Text
from server.pool.suspects import MAX_DEATHS, MEMORY_S, Suspects
from server.sampling import SamplingParams


def request(text: str = "Hi", **sampling: float) -> GenerateRequest:
    return GenerateRequest(Text(text), SamplingParams.model_validate(sampling), stop=("END",))


def test_a_request_is_refused_after_two_deaths() -> None:
    suspects = Suspects()
    for _ in range(MAX_DEATHS):
        suspects.check(request())
        suspects.accuse(request())
    with pytest.raises(RequestRefused, match=f"{MAX_DEATHS} times"):
        suspects.check(request())


def test_others_are_not() -> None:
    suspects = Suspects()
    for _ in range(MAX_DEATHS):
        suspects.accuse(request())
    suspects.check(request("Ho"))
    suspects.check(request(temperature=0.5))


def test_a_success_clears() -> None:
    suspects = Suspects()
    suspects.clear(request())
    suspects.accuse(request())
    suspects.clear(request())
    suspects.accuse(request())
    suspects.check(request())


def test_one_is_not_cleared_by_another() -> None:
    suspects = Suspects()
    for _ in range(MAX_DEATHS):
        suspects.accuse(request())
        suspects.clear(request("Ho"))
    with pytest.raises(RequestRefused):
        suspects.check(request())


def test_the_order_of_the_fields_does_not_matter() -> None:
    suspects = Suspects()
    for _ in range(MAX_DEATHS):
        suspects.accuse(request(top_k=3, temperature=0.5, min_p=0.1, top_p=0.5))
    with pytest.raises(RequestRefused):
        suspects.check(request(top_p=0.5, min_p=0.1, temperature=0.5, top_k=3))


def test_each_model_has_its_own() -> None:
    first, second = Suspects(), Suspects()
    for _ in range(MAX_DEATHS):
        first.accuse(request())
    second.check(request())


def test_deaths_are_forgotten_after_a_while() -> None:
    now = 0.0
    suspects = Suspects(clock=lambda: now)
    for _ in range(MAX_DEATHS):
        suspects.accuse(request())
    now = MEMORY_S - 1
    with pytest.raises(RequestRefused):
        suspects.check(request())
    now = MEMORY_S + 1
    suspects.check(request())
