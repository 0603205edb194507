"""Events and whole answers, from whatever pieces the engine sends."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.answers import AnswerEvent, Echoed, End, Piece, Tokens
from server.api.openai.logprobs import LEAST
from server.api.tgi.writers import Asked, Events, Whole
from server.engine.detokenizer import Detokenizer
from server.engine.scores import ScoreQueue
from server.ipc import TokenScore

EOS = 2
NAMES = {EOS: "</s>"}


def asked(*seeds: int | None, stop: tuple[str, ...] = (), prompt: str = "") -> Asked:
    return Asked(prompt, stop, seeds or (None,), True, NAMES)


def score(piece: bytes, logprob: float = -0.5, id: int = 7) -> TokenScore:
    return TokenScore(id, piece, logprob)


END = TokenScore(EOS, b"", -0.25)


def data(raw: bytes) -> list[Any]:
    blocks = raw.decode().removesuffix("\n\n").split("\n\n") if raw else []
    assert all(block.startswith("data:{") for block in blocks)
    return [json.loads(block.removeprefix("data:")) for block in blocks]


def engine_says(pieces: list[bytes], stop: tuple[str, ...]) -> list[AnswerEvent]:
    """The events of an answer of these tokens and an EOS, as the engine makes them of them."""
    detokenizer, scores = Detokenizer(stop, keep_stop=True), ScoreQueue(bool(stop))
    events: list[AnswerEvent] = []

    def end(text: str) -> list[AnswerEvent]:
        rest = scores.finish(text, detokenizer.stopped)
        ends = [Piece(0, text, 1, rest, True), End(0, "stop")] if text else [End(0, "stop", rest)]
        return [*events, *ends, Tokens(3, 0, len(pieces) + 1)]

    for piece in pieces:
        scores.add(score(piece))
        text = detokenizer.push(piece)
        if detokenizer.stopped:
            return end(text)
        if text:
            events.append(Piece(0, text, 1, scores.take(text)))
    scores.add(END)
    return end(detokenizer.finish())


@given(
    st.lists(st.sampled_from([b"a", b"ab", b"b c", b"\xe2\x82", b"\xac", b"\xff", b"d", b""])),
    st.sets(st.sampled_from(["b", "ab", "ba", "€", "a€", "c", "d\ufffd"]), max_size=2),
)
def test_tokens_add_up_to_the_text(pieces: list[bytes], stops: set[str]) -> None:
    stop = tuple(stops)
    events = engine_says(pieces, stop)
    text = "".join(event.text for event in events if isinstance(event, Piece))
    streamed = Events(asked(stop=stop))
    told = data(b"".join(map(streamed.write, events)))
    [*_, last] = told
    assert last["generated_text"] == text
    stopped = any(s in text for s in stop)
    assert last["details"]["finish_reason"] == ("stop_sequence" if stopped else "eos_token")
    # An ending token has no part in it but what was left open before.
    *others, ending = (event["token"] for event in told)
    shown = ending["text"].removesuffix("</s>") if ending["id"] == EOS else ending["text"]
    assert "".join(t["text"] for t in others if not t["special"]) + shown == text
    whole = Whole(asked(stop=stop), False, 0.0)
    answer = json.loads(b"".join(map(whole.write, events)))
    assert answer["generated_text"] == text
    assert answer["details"]["tokens"] == [event["token"] for event in told]
    assert answer["details"]["finish_reason"] == last["details"]["finish_reason"]


def test_every_token_is_told_at_once_but_the_last() -> None:
    events = Events(asked(11))
    assert [e["token"]["text"] for e in data(events.write(Piece(0, "a", 1, (score(b"a"),))))] == [
        "a"
    ]
    assert events.write(Piece(0, "b", 1, (score(b"b"),), True)) == b""
    assert events.write(End(0, "length")) == b""
    [last] = data(events.write(Tokens(5, 0, 2)))
    assert last == {
        "index": 2,
        "token": {"id": 7, "text": "b", "logprob": -0.5, "special": False},
        "generated_text": "ab",
        "details": {
            "finish_reason": "length",
            "generated_tokens": 2,
            "seed": 11,
            "input_length": 5,
        },
    }


def test_impossible_tokens_have_a_number() -> None:
    events = Events(asked())
    [event] = data(events.write(Piece(0, "a", 1, (score(b"a", -float("inf")),))))
    assert event["token"]["logprob"] == LEAST


def test_the_best_candidate_is_told_and_the_others_beside_it() -> None:
    whole = Whole(asked(1, 2, 3, prompt="P"), True, 0.0)
    for index, logprob in enumerate((-2.0, -0.1, -1.0)):
        whole.write(Echoed(index, (TokenScore(1, b"P", None),)))
        whole.write(Piece(index, f"t{index}", 1, (score(b"t%d" % index, logprob),), True))
        whole.write(End(index, "length"))
    [answer] = json.loads(whole.write(Tokens(1, 0, 3, queued_s=0.0)))
    assert answer["generated_text"] == "Pt1"
    assert answer["details"]["seed"] == 2
    assert answer["details"]["prefill"] == [{"id": 1, "text": "P", "logprob": None}]
    others = answer["details"]["best_of_sequences"]
    assert [(o["generated_text"], o["seed"]) for o in others] == [("Pt0", 1), ("Pt2", 3)]
    assert whole.headers["x-generated-tokens"] == "1"


def test_times_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.25, 12.0))
    monkeypatch.setattr("server.api.tgi.writers.perf_counter", lambda: next(clock))
    whole = Whole(asked(), False, 10.0)
    whole.write(Piece(0, "a", 1))
    whole.write(End(0, "length"))
    monkeypatch.setattr(whole, "_asked", Asked("", (), (None,), False, NAMES))
    assert json.loads(whole.write(Tokens(9, 0, 5, queued_s=0.5))) == {"generated_text": "a"}
    assert whole.headers == {
        "x-compute-time": "2.000000",
        "x-total-time": "2000",
        "x-validation-time": "250",
        "x-queue-time": "500",
        "x-inference-time": "1250",
        "x-time-per-token": "250",
        "x-prompt-tokens": "9",
        "x-generated-tokens": "5",
    }
