"""Every kind of part in events, and that the events add up to the response."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.api.answers import Tokens
from server.api.errors import told
from server.api.openai.responses.items import unseal
from server.api.openai.responses.resource import ResponseObject
from server.api.openai.responses.writer import Writer
from server.api.openai.turns import Said, TurnEnd, TurnEndReason
from server.chat.turn import CallArguments, CallBegin, Content, Part, Reasoning
from server.errors import ContextLengthExceeded, CorralError, QueueFull, WorkerDied
from server.ipc import TokenScore
from tests.api.openai.responses.wire import events, whole

TOKENS = Tokens(7, 3, 9, 2)

A_CALL = (CallBegin(0, "call_a", "f"), CallArguments(0, '{"x'), CallArguments(0, '": 1}'))
ANOTHER = (CallBegin(1, "call_b", "g"), CallArguments(1, "{}"))


def score(letter: str) -> TokenScore:
    piece = letter.encode()
    return TokenScore(1, piece, -0.5, ((1, piece, -0.5), (2, b"\xff", -2.0)))


def a_writer(
    scored: bool = False, sealed: bool = False, queued: bool = False, store: bool = True
) -> Writer:
    response = ResponseObject(
        id="resp_1",
        created_at=5,
        status="queued" if queued else "in_progress",
        background=queued,
        instructions=None,
        max_output_tokens=None,
        max_tool_calls=None,
        model="tiny",
        parallel_tool_calls=True,
        previous_response_id=None,
        reasoning={"effort": None, "summary": None},
        store=store,
        temperature=1.0,
        text={"format": {"type": "text"}, "verbosity": "medium"},
        tool_choice="auto",
        tools=[],
        top_logprobs=0,
        top_p=1.0,
        truncation="disabled",
        metadata={},
    )
    return Writer(response, scored, sealed)


def told_by(
    writer: Writer, parts: Sequence[Part], reason: TurnEndReason = "stop", stored: bool = True
) -> Any:
    """The response at the end of a stream that says these parts, checked."""
    frames = writer.begin()
    for i, part in enumerate(parts):
        frames += writer.say(Said(0, part, (score(chr(97 + i % 26)),)))
    frames += writer.end(TurnEnd(0, reason))
    writer.finish(TOKENS)
    frames += writer.last(stored)
    return whole(b"".join(frames))


def test_text() -> None:
    response = told_by(a_writer(), [Content("Hel"), Content("lo\n\n\u2028é")])
    (item,) = response["output"]
    assert item["id"].startswith("msg_")
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"] == [
        {"type": "output_text", "text": "Hello\n\n\u2028é", "annotations": [], "logprobs": []}
    ]
    assert response["status"] == "completed" and response["completed_at"] >= 5
    assert response["incomplete_details"] is None and response["error"] is None
    assert response["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 16,
    }


def test_the_sequence() -> None:
    writer = a_writer()
    frames = writer.begin() + writer.say(Said(0, Content("Hi"))) + writer.end(TurnEnd(0, "stop"))
    writer.finish(TOKENS)
    names = [event["type"] for event in events(b"".join(frames + writer.last(True)))]
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_a_queued_response_is_told_so_first() -> None:
    begun = events(b"".join(a_writer(queued=True).begin()))
    assert [(event["type"], event["response"]["status"]) for event in begun] == [
        ("response.created", "queued"),
        ("response.queued", "queued"),
        ("response.in_progress", "in_progress"),
    ]


def test_thoughts_text_and_calls() -> None:
    parts = [Reasoning("Hm"), Reasoning("m."), Content("Let me see."), *A_CALL, *ANOTHER]
    thoughts, text, one, other = told_by(a_writer(), parts, "tool_calls")["output"]
    assert thoughts == {
        "id": thoughts["id"],
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hmm."}],
        "encrypted_content": None,
    }
    assert text["content"][0]["text"] == "Let me see."
    assert (one["call_id"], one["name"], one["arguments"]) == ("call_a", "f", '{"x": 1}')
    assert (other["call_id"], other["name"], other["arguments"]) == ("call_b", "g", "{}")
    assert one["id"].startswith("fc_") and one["id"] != other["id"]


def test_reasoning_is_sealed_for_clients_that_ask() -> None:
    (thoughts, _) = told_by(a_writer(sealed=True), [Reasoning("Hm é"), Content("x")])["output"]
    assert unseal(thoughts["encrypted_content"]) == "Hm é"


def test_logprobs() -> None:
    parts = [Reasoning("Hm"), Content("b"), Content("c")]
    _, text = told_by(a_writer(scored=True), parts)["output"]
    logprobs = text["content"][0]["logprobs"]
    assert [(entry["token"], entry["logprob"], entry["bytes"]) for entry in logprobs] == [
        ("b", -0.5, [98]),
        ("c", -0.5, [99]),
    ]
    assert logprobs[0]["top_logprobs"][1] == {
        "token": "bytes:\\xff",
        "logprob": -2.0,
        "bytes": [255],
    }


def test_an_empty_answer_is_a_message() -> None:
    (item,) = told_by(a_writer(), [])["output"]
    assert item["content"][0]["text"] == ""


def test_too_long() -> None:
    response = told_by(a_writer(), [Reasoning("Hm"), *A_CALL[:2]], "length")
    assert response["status"] == "incomplete" and response["completed_at"] is None
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["usage"]["output_tokens"] == 9


def test_what_could_not_be_stored_says_so() -> None:
    assert told_by(a_writer(), [Content("x")], stored=False)["store"] is False


def test_cancelled() -> None:
    writer = a_writer(queued=True)
    frames = writer.begin() + writer.say(Said(0, Content("Hel"))) + writer.cancel()
    response = whole(b"".join(frames))
    assert response["status"] == "cancelled"
    assert [item["status"] for item in response["output"]] == ["incomplete"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkerDied("gone"), "server_error"),
        (QueueFull("gone"), "rate_limit_exceeded"),
        (ContextLengthExceeded("gone", param="input"), "invalid_prompt"),
    ],
)
def test_failed(error: CorralError, code: str) -> None:
    writer = a_writer()
    frames = writer.begin() + writer.say(Said(0, Content("Hel")))
    frames += writer.fail(told(error), stored=False)
    stream = b"".join(frames)
    response = whole(stream)
    assert response["status"] == "failed" and response["store"] is False
    assert response["error"] == {"code": code, "message": "gone"}
    event = events(stream)[-2]
    assert event["type"] == "error"
    assert {event["message"], event["error"]["message"]} == {"gone"}
    assert event["param"] == event["error"]["param"] == error.param
    assert event["code"] == event["error"]["code"]


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
CALL = st.tuples(TEXT, TEXT, st.lists(TEXT, max_size=3)).map(
    lambda c: [CallBegin(0, c[0], c[1]), *(CallArguments(0, text) for text in c[2])]
)
PARTS = st.lists(
    TEXT.map(lambda t: [Content(t)]) | TEXT.map(lambda t: [Reasoning(t)]) | CALL, max_size=8
)


@given(PARTS, st.booleans(), st.booleans())
@settings(deadline=None)
def test_the_events_add_up(parts: list[list[Part]], scored: bool, sealed: bool) -> None:
    flat = [part for some in parts for part in some]
    output = told_by(a_writer(scored, sealed), flat)["output"]
    said = "".join(part.text for part in flat if isinstance(part, Content))
    assert said == "".join(i["content"][0]["text"] for i in output if i["type"] == "message")
    arguments = "".join(part.text for part in flat if isinstance(part, CallArguments))
    assert arguments == "".join(i["arguments"] for i in output if i["type"] == "function_call")
