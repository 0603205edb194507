"""Chat answers on the wire: every kind of part, in chunks and whole, and that both say the same."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from server.api.answers import AnswerEvent, End, EndReason, Piece, Tokens
from server.api.openai.chat_wire import ChatChunks, ChatWhole
from server.api.openai.schema import Head
from server.api.openai.turns import Turns
from server.chat.turn import CallArguments, CallBegin, Content, Part, Plan, Reasoning
from server.ipc import Text, TokenScore
from tests.api.scripted import MODEL, events

HEAD = Head("chatcmpl-1", 5, MODEL, "fp_1")
TOKENS = Tokens(7, 3, 9)

A_CALL = (CallBegin(0, "call_a", "f"), CallArguments(0, '{"x'), CallArguments(0, '": 1}'))
ANOTHER = (CallBegin(1, "call_b", "g"), CallArguments(1, "{}"))


class OrderedParser:
    """Says one of these parts for each letter that it is given."""

    def __init__(self, parts: Sequence[Part]):
        self._parts = list(parts)

    def push(self, text: str) -> list[Part]:
        return [self._parts.pop(0) for _ in text]

    def finish(self) -> list[Part]:
        return []


def plan(parts: Sequence[Part]) -> Plan:
    return Plan(Text("Hi"), lambda: OrderedParser(parts))


def score(letter: str) -> TokenScore:
    piece = letter.encode()
    return TokenScore(1, piece, -0.5, ((1, piece, -0.5), (2, b"\xff", -2.0)))


def answer(parts: Sequence[Part], reason: EndReason = "stop", choice: int = 0) -> list[AnswerEvent]:
    """The events of a choice that says these parts, a letter for each."""
    pieces = [Piece(choice, "x", 1, (score(chr(97 + i)),)) for i in range(len(parts))]
    return [*pieces, End(choice, reason, (score("z"),))]


def streamed(
    parts: Sequence[Part], happened: Sequence[AnswerEvent], n: int = 1, legacy: bool = False
) -> list[Any]:
    writer = ChatChunks(Turns(plan(parts), n), HEAD, legacy, include_usage=True)
    return events(b"".join(writer.write(event) for event in [*happened, TOKENS]))


def whole(
    parts: Sequence[Part], happened: Sequence[AnswerEvent], n: int = 1, legacy: bool = False
) -> Any:
    writer = ChatWhole(Turns(plan(parts), n), n, HEAD, legacy, logprobs=True)
    assert not b"".join(writer.write(event) for event in happened)
    return json.loads(writer.write(TOKENS))


def deltas(chunks: Sequence[Any]) -> list[Any]:
    """Of the only choice; the last chunk is usage."""
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    return [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]


def test_a_call_in_chunks() -> None:
    parts = [Content("Let me see."), *A_CALL, *ANOTHER]
    chunks = streamed(parts, answer(parts))
    assert deltas(chunks) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Let me see."},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "call_a",
                    "type": "function",
                    "function": {"name": "f", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '": 1}'}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "call_b",
                    "type": "function",
                    "function": {"name": "g", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 7 + [
        "tool_calls"
    ]


def test_a_whole_call() -> None:
    body = whole(A_CALL, answer(A_CALL))
    ChatCompletion.model_validate(body, strict=True)
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {
                "id": "call_a",
                "type": "function",
                "function": {"name": "f", "arguments": '{"x": 1}'},
            }
        ],
    }


def test_a_call_alone_has_no_content_in_chunks_either() -> None:
    first, *_ = deltas(streamed(A_CALL, answer(A_CALL)))
    assert first == {"role": "assistant", "content": None, "refusal": None}


def test_a_call_that_is_cut_off() -> None:
    cut = answer(A_CALL[:2], "length")
    assert streamed(A_CALL, cut)[-2]["choices"][0]["finish_reason"] == "length"
    (choice,) = whole(A_CALL, cut)["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"x'


def test_the_form_before() -> None:
    chunks = streamed(A_CALL, answer(A_CALL), legacy=True)
    assert deltas(chunks)[1:] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": '{"x'}},
        {"function_call": {"arguments": '": 1}'}},
        {},
    ]
    assert chunks[-2]["choices"][0]["finish_reason"] == "function_call"
    body = whole(A_CALL, answer(A_CALL), legacy=True)
    ChatCompletion.model_validate(body, strict=True)
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "function_call": {"name": "f", "arguments": '{"x": 1}'},
    }


def test_thoughts() -> None:
    parts = [Reasoning("2 + "), Reasoning("2"), Content("4")]
    chunks = streamed(parts, answer(parts))
    assert deltas(chunks) == [
        {"role": "assistant", "content": None, "refusal": None},
        {"reasoning_content": "2 + ", "reasoning": "2 + "},
        {"reasoning_content": "2", "reasoning": "2"},
        {"content": "4"},
        {},
    ]
    assert chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2
    body = whole(parts, answer(parts))
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "4",
        "refusal": None,
        "reasoning_content": "2 + 2",
        "reasoning": "2 + 2",
    }
    assert body["usage"] == chunks[-1]["usage"]


def test_scores_come_with_their_chunk() -> None:
    parts = [Content("x"), Content("y")]
    chunks = streamed(parts, [Piece(0, "xx", 2, (score("a"), score("b"))), End(0, "stop")])
    told = [chunk["choices"][0]["logprobs"] for chunk in chunks[:-1]]
    assert told[0] is told[2] is told[3] is None
    assert [entry["token"] for entry in told[1]["content"]] == ["a", "b"]
    chunks = streamed(parts, answer(parts))
    told = [chunk["choices"][0]["logprobs"] for chunk in chunks[1:-1]]
    assert [[entry["token"] for entry in logprobs["content"]] for logprobs in told] == [
        ["a"],
        ["b"],
        ["z"],
    ]


PARTS = st.one_of(
    st.builds(Content, st.text(min_size=1, max_size=3)),
    st.builds(Reasoning, st.text(min_size=1, max_size=3)),
)


@given(
    said=st.lists(PARTS, max_size=4),
    calls=st.sampled_from([(), A_CALL, (*A_CALL, *ANOTHER), A_CALL[:1]]),
    reason=st.sampled_from(["stop", "length"]),
    n=st.integers(1, 3),
    data=st.data(),
)
def test_chunks_add_up_to_the_whole_answer(
    said: list[Part], calls: Sequence[Part], reason: EndReason, n: int, data: st.DataObject
) -> None:
    parts = [*said, *calls]
    queues = [answer(parts, reason, choice) for choice in range(n)]
    happened: list[AnswerEvent] = []
    while any(queues):
        at = data.draw(st.sampled_from([i for i, queue in enumerate(queues) if queue]))
        happened.append(queues[at].pop(0))
    state = ChatCompletionStreamState()
    for chunk in streamed(parts, happened, n):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk, strict=True))
    folded = state.current_completion_snapshot
    expected = ChatCompletion.model_validate(whole(parts, happened, n), strict=True)
    assert folded.usage == expected.usage
    assert len(folded.choices) == n
    for one, other in zip(folded.choices, expected.choices, strict=True):
        assert one.finish_reason == other.finish_reason
        assert one.logprobs is not None and other.logprobs is not None
        assert one.logprobs.content == other.logprobs.content
        assert (one.message.content or "") == (other.message.content or "")
        assert one.message.role == other.message.role
        assert getattr(one.message, "reasoning", None) == getattr(other.message, "reasoning", None)
        one_calls, other_calls = one.message.tool_calls or [], other.message.tool_calls or []
        assert [(c.id, c.function.name, c.function.arguments) for c in one_calls] == [
            (c.id, c.function.name, c.function.arguments)
            for c in other_calls
            if c.type == "function"
        ]
