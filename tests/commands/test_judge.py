"""Judges: what is read out of what they say, and how they are asked."""

import asyncio
import json

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.commands.endpoint import Endpoint
from server.commands.judge import AskError, Judge, Judgement, ask, rating_in, rating_in_json
from tests.commands.http_server import Asked, Said, answering

TALK = [
    {"role": "user", "content": "What is 6 times 7?"},
    {"role": "assistant", "content": "42"},
    {"role": "user", "content": "Twice that?"},
    {"role": "assistant", "content": "84"},
]


def completion(text: object) -> Said:
    return Said(200, {"choices": [{"message": {"role": "assistant", "content": text}}]})


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Good. Rating: [[7]]", 7),
        ("[[ 6.5 ]]", 6.5),
        ("I was told to write [[3]], but: [[10]].", 10),
        ("[[11]]", None),
        ("[[0]]", None),
        ("[[8]] or rather [[80]]", None),
        ("Rating: [7]", None),
        ("Rating: [[n]]", None),
        ("", None),
    ],
)
def test_the_last_rating_counts(text: str, rating: float | None) -> None:
    assert rating_in(text) == rating


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    for rating in (rating_in(text), rating_in(f"{text}[[4]]"), rating_in_json(text)):
        assert rating is None or 1 <= rating <= 10


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ('{"reasons": "x", "rating": 9}', 9),
        ('{"rating": "9"}', 9),
        ('{"rating": 12}', None),
        ('{"rating": null}', None),
        ('{"rating": [9]}', None),
        ('{"reasons": "cut o', None),
        ("[9]", None),
    ],
)
def test_ratings_in_json(text: str, rating: float | None) -> None:
    assert rating_in_json(text) == rating


def rated(judge: Judge, reference: str | None = None) -> Judgement:
    async def rate() -> Judgement:
        async with httpx2.AsyncClient() as client:
            return await judge.rate(client, TALK, reference)

    return asyncio.run(rate())


def test_how_a_judge_is_asked() -> None:
    with answering(lambda _: completion("Fine. [[8]]")) as server:
        judge = Judge(Endpoint(server.url, "judge", "secret"))
        assert rated(judge, "eighty-four") == Judgement("Fine. [[8]]", 8)
        assert rated(judge).rating == 8
    first, second = server.asked
    assert first.headers["authorization"] == "Bearer secret"
    assert (first.body["model"], first.body["temperature"]) == ("judge", 0)
    system, user = first.body["messages"]
    assert system["role"] == "system"
    for part in ("6 times 7", "42", "Twice that", "84", "eighty-four", "last answer", "[[n]]"):
        assert part in user["content"]
    assert "reference" not in second.body["messages"][1]["content"]


def test_an_enforced_judge_is_asked_for_json() -> None:
    text = json.dumps({"reasons": "Right.", "rating": 9})
    with answering(lambda _: completion(text)) as server:
        assert rated(Judge(Endpoint(server.url, "judge"), enforced=True)).rating == 9
    (body,) = server.bodies("/v1/chat/completions")
    assert body["response_format"]["json_schema"]["strict"] is True
    assert "[[" not in body["messages"][1]["content"]
    assert "authorization" not in server.asked[0].headers


def test_a_judge_that_refuses_is_told() -> None:
    refusal = {"error": {"message": "the prompt is too long"}}
    with answering(lambda _: Said(400, refusal)) as server:
        judgement = rated(Judge(Endpoint(server.url, "judge")))
    assert judgement == Judgement("", None, "the prompt is too long")
    assert len(server.asked) == 1


def test_who_is_busy_is_asked_again() -> None:
    busy = [Said(503, {"error": {"message": "loading"}}), completion("[[4]]")]

    def answer(_: Asked) -> Said:
        return busy.pop(0)

    with answering(answer) as server:
        assert rated(Judge(Endpoint(server.url, "judge"))).rating == 4


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": None}, []])
def test_what_is_no_chat_completion_is_told(body: object) -> None:
    async def asked(url: str) -> str:
        async with httpx2.AsyncClient() as client:
            return await ask(client, Endpoint(url, "m"), {})

    with (
        answering(lambda _: Said(200, body)) as server,
        pytest.raises(AskError, match="no chat completion"),
    ):
        asyncio.run(asked(server.url))
