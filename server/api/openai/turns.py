"""Turns: what the choices of one request say, part by part, whichever endpoint writes it."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, assert_never

from server.api.answers import AnswerEvent, Answers, Echoed, End, Piece, Tokens
from server.chat.turn import CallArguments, CallBegin, Content, Parser, Part, Plan, Reasoning
from server.ipc import TokenScore

TurnEndReason = Literal["stop", "length", "tool_calls"]

Scores = tuple[TokenScore, ...]


class Said(NamedTuple):
    """The next part of a choice, and the scores of all tokens since the part before."""

    choice: int
    part: Part
    scores: Scores = ()


class TurnEnd(NamedTuple):
    """A choice is complete; the scores of tokens that no part came of."""

    choice: int
    reason: TurnEndReason
    scores: Scores = ()


ChatEvent = Said | TurnEnd | Tokens
"""Tokens comes last, with its `reasoning` filled in."""


class _Reader:
    """Reads one choice. Where its text yields no part yet, its scores and tokens wait."""

    __slots__ = ("_calls", "_held", "_index", "_n_held", "_parser", "n_reasoning")

    def __init__(self, index: int, parser: Parser):
        self._index = index
        self._parser = parser
        self._calls = False
        self._held: Scores = ()
        self._n_held = 0
        self.n_reasoning = 0

    def piece(self, piece: Piece) -> list[ChatEvent]:
        parts = self._parser.push(piece.text)
        # What happens for nearly every token of most answers.
        waits = self._n_held or self._held
        if len(parts) == 1 and not waits and isinstance(parts[0], Content):
            return [Said(self._index, parts[0], piece.scores)]
        return self._said(parts, piece.n_tokens, piece.scores)

    def end(self, end: End) -> list[ChatEvent]:
        said = self._said(self._parser.finish(), 0, end.scores)
        called = self._calls and end.reason == "stop"
        reason: TurnEndReason = "tool_calls" if called else end.reason
        said.append(TurnEnd(self._index, reason, self._held))
        return said

    def _said(self, parts: list[Part], n_tokens: int, scores: Scores) -> list[ChatEvent]:
        if self._held:
            scores = self._held + scores
        if not parts:
            self._held = scores
            self._n_held += n_tokens
            return []
        first = parts[0]
        if len(parts) > 1 or not isinstance(first, Content):
            self._calls = self._calls or any(isinstance(part, CallBegin) for part in parts)
            self.n_reasoning += round((self._n_held + n_tokens) * _reasoned(parts))
        said: list[ChatEvent] = [Said(self._index, first, scores)]
        said += [Said(self._index, part) for part in parts[1:]]
        self._held, self._n_held = (), 0
        return said


def _reasoned(parts: Sequence[Part]) -> float:
    """The share of reasoning in some text: no token is told apart from its neighbours."""
    lengths = [(isinstance(part, Reasoning), _length(part)) for part in parts]
    return sum(n for reasons, n in lengths if reasons) / sum(n for _, n in lengths)


def _length(part: Part) -> int:
    match part:
        case Content(text) | Reasoning(text) | CallArguments(_, text):
            return max(1, len(text))
        case CallBegin(_, _, name):
            return len(name)
        case _:
            assert_never(part)


class Turns:
    """Reads the `n` choices of one request, each with a parser of its own."""

    def __init__(self, plan: Plan, n: int):
        self._readers = [_Reader(index, plan.parser()) for index in range(n)]

    def read(self, event: AnswerEvent) -> Sequence[ChatEvent]:
        """What an event of the answers says; nothing while the parser holds its text back."""
        match event:
            case Piece():
                return self._readers[event.choice].piece(event)
            case End():
                return self._readers[event.choice].end(event)
            case Tokens():
                return [replace(event, reasoning=sum(r.n_reasoning for r in self._readers))]
            case Echoed():
                raise AssertionError("a turn's prompt is not echoed")
            case _:
                assert_never(event)


async def chat_events(answers: Answers, plan: Plan, n: int = 1) -> AsyncGenerator[ChatEvent]:
    """The parts of all choices as they come, then Tokens. Raises the first error."""
    turns = Turns(plan, n)
    async for event in answers.events():
        for said in turns.read(event):
            yield said
