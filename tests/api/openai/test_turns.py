"""What choices say, part by part, and how their tokens are counted and scored."""

from collections.abc import Mapping, Sequence

import pytest

from server.api.answers import Answers, Echoed, End, EndReason, Piece, Tokens
from server.api.openai.turns import ChatEvent, Said, TurnEnd, TurnEndReason, Turns, chat_events
from server.chat.turn import CallArguments, CallBegin, Content, Part, Plan, Reasoning
from server.ipc import GenerateRequest, Text, TokenScore
from server.metrics import Metrics
from server.sampling import SamplingParams
from tests.api.scripted import build, speak

SAID: Mapping[str, Part] = {
    "t": Reasoning("think"),
    "c": CallBegin(0, "call_1", "f"),
    "a": CallArguments(0, "{}"),
    "T": Reasoning("T" * 30),
    "X": Content("X" * 10),
}


class LetterParser:
    """Each letter is a part: one of SAID, else content; `_` is held back and comes at the end."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> list[Part]:
        self._held += "".join(letter for letter in text if letter == "_")
        return [SAID.get(letter, Content(letter)) for letter in text if letter != "_"]

    def finish(self) -> list[Part]:
        return [Content(self._held)] if self._held else []


PLAN = Plan(Text("Hi"), LetterParser)
TOKENS = Tokens(7, 3, 9)


def scores(*pieces: bytes) -> tuple[TokenScore, ...]:
    return tuple(TokenScore(i, piece, -0.5) for i, piece in enumerate(pieces))


def read(turns: Turns, *events: Piece | End | Tokens) -> list[ChatEvent]:
    return [said for event in events for said in turns.read(event)]


def test_parts_as_they_come() -> None:
    said = read(Turns(PLAN, 2), Piece(1, "xy", 1), Piece(0, "c", 1), End(1, "stop"))
    assert said == [
        Said(1, Content("x")),
        Said(1, Content("y")),
        Said(0, CallBegin(0, "call_1", "f")),
        TurnEnd(1, "stop"),
    ]


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("xy", "stop", "stop"),
        ("xy", "length", "length"),
        ("ca", "stop", "tool_calls"),
        ("xca", "stop", "tool_calls"),
        ("ca", "length", "length"),
        ("t", "stop", "stop"),
    ],
)
def test_why_a_turn_ends(text: str, reason: EndReason, expected: TurnEndReason) -> None:
    *_, end = read(Turns(PLAN, 1), Piece(0, text, 1), End(0, reason))
    assert end == TurnEnd(0, expected)


def test_calls_of_one_choice_are_not_those_of_another() -> None:
    turns = Turns(PLAN, 2)
    read(turns, Piece(0, "ca", 2), Piece(1, "x", 1))
    assert read(turns, End(1, "stop")) == [TurnEnd(1, "stop")]
    assert read(turns, End(0, "stop")) == [TurnEnd(0, "tool_calls")]


def test_what_is_held_back_comes_at_the_end() -> None:
    said = read(Turns(PLAN, 1), Piece(0, "_", 1), Piece(0, "_", 1), End(0, "length"))
    assert said == [Said(0, Content("__")), TurnEnd(0, "length")]


def test_scores_come_with_the_part_that_their_text_became() -> None:
    one, two, three = scores(b"a", b"b", b"c")
    said = read(
        Turns(PLAN, 1),
        Piece(0, "_", 1, (one,)),
        Piece(0, "xy", 1, (two,)),
        Piece(0, "z", 1, (three,)),
        End(0, "stop"),
    )
    assert said == [
        Said(0, Content("x"), (one, two)),
        Said(0, Content("y")),
        Said(0, Content("z"), (three,)),
        Said(0, Content("_")),
        TurnEnd(0, "stop"),
    ]


def test_scores_that_no_part_came_of_come_with_the_end() -> None:
    one, two = scores(b"a", b"b")
    said = read(Turns(PLAN, 1), Piece(0, "", 1, (one,)), End(0, "stop", (two,)))
    assert said == [TurnEnd(0, "stop", (one, two))]
    said = read(Turns(PLAN, 1), Piece(0, "_", 1, (one,)), End(0, "stop", (two,)))
    assert said == [Said(0, Content("_"), (one, two)), TurnEnd(0, "stop")]


@pytest.mark.parametrize(
    ("pieces", "n_reasoning"),
    [
        ([("x", 5)], 0),
        ([("t", 1), ("t", 2), ("x", 4)], 3),
        # The tag before the thoughts is held back, the one after them comes with content.
        ([("_", 1), ("t", 2), ("_", 1), ("x", 4)], 3),
        # A slow reader got both in one piece: by their lengths.
        ([("TX", 8)], 6),
        ([("ca", 4)], 0),
    ],
)
def test_tokens_of_thoughts_are_counted(
    pieces: Sequence[tuple[str, int]], n_reasoning: int
) -> None:
    turns = Turns(PLAN, 2)
    for choice in (0, 1):
        read(turns, *(Piece(choice, text, n) for text, n in pieces))
    assert turns.read(TOKENS) == [Tokens(7, 3, 9, 2 * n_reasoning)]


def test_prompts_are_not_echoed() -> None:
    with pytest.raises(AssertionError, match="not echoed"):
        Turns(PLAN, 1).read(Echoed(0, ()))


async def test_events_of_answers() -> None:
    worker = build(speak("t", "x", n_prompt=7, n_cached=3))[1].scripted
    request = GenerateRequest(Text("Hi"), SamplingParams())
    answers = Answers(worker, [request], 1, Metrics(lambda: {}), 0.0)
    await answers.accepted()
    assert [event async for event in chat_events(answers, PLAN)] == [
        Said(0, Reasoning("think")),
        Said(0, Content("x")),
        TurnEnd(0, "stop"),
        Tokens(7, 3, 2, 1),
    ]
