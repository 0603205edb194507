"""Chat answers on the wire, in chunks or whole. Both are written from the same events."""

from dataclasses import dataclass, field
from typing import assert_never

from server.api.answers import AnswerEvent, Tokens
from server.api.openai.chat_answer import (
    AnswerCall,
    AnswerMessage,
    CalledFunction,
    ChatChoice,
    ChatCompletion,
    ChatEndReason,
)
from server.api.openai.logprobs import chat_logprobs
from server.api.openai.schema import ChunkFrame, Head, Usage, encode
from server.api.openai.turns import Said, TurnEnd, Turns
from server.chat.turn import CallArguments, CallBegin, Content, Part, Reasoning
from server.ipc import TokenScore


def _end_reason(end: TurnEnd, legacy: bool) -> ChatEndReason:
    return "function_call" if legacy and end.reason == "tool_calls" else end.reason


class ChatChunks:
    """Writes the answers of one request as chunks. `legacy`: calls as `function_call`."""

    def __init__(self, turns: Turns, head: Head, legacy: bool, include_usage: bool):
        self._turns = turns
        self._frame = ChunkFrame("chat.completion.chunk", head, include_usage)
        self._legacy = legacy
        self._include_usage = include_usage
        self._n_begun = 0

    def write(self, event: AnswerEvent) -> bytes:
        written = b""
        for said in self._turns.read(event):
            match said:
                case Said(index, Content(text), scores):
                    written += self._chunk(index, f'{{"content":{encode(text)}}}', "null", scores)
                case Said(index, part, scores):
                    written += self._chunk(index, self._delta(part), "null", scores, "null")
                case TurnEnd(index, _, scores):
                    reason = f'"{_end_reason(said, self._legacy)}"'
                    written += self._chunk(index, "{}", reason, scores)
                case Tokens():
                    if self._include_usage:
                        written += self._frame.usage(said)
                case _:
                    assert_never(said)
        return written

    def _delta(self, part: Part) -> str:
        match part:
            case Content(text):
                delta: object = {"content": text}
            case Reasoning(text):
                delta = {"reasoning_content": text, "reasoning": text}
            case CallBegin(index, id, name):
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": id, "type": "function", "function": function}
                delta = {"function_call": function} if self._legacy else {"tool_calls": [call]}
            case CallArguments(index, text):
                function = {"arguments": text}
                call = {"index": index, "function": function}
                delta = {"function_call": function} if self._legacy else {"tool_calls": [call]}
            case _:
                assert_never(part)
        return encode(delta)

    def _chunk(
        self,
        index: int,
        delta: str,
        reason: str,
        scores: tuple[TokenScore, ...],
        content: str = '""',
    ) -> bytes:
        """A chunk; before the first of a choice, the chunk that opens it with this `content`."""
        # The token that ends an answer has no text, and no place here.
        spoken = scores and any(score.piece for score in scores)
        logprobs = encode(chat_logprobs(scores)) if spoken else "null"
        chunk = self._event(index, delta, logprobs, reason)
        return chunk if index < self._n_begun else self._opened(index, content) + chunk

    def _opened(self, index: int, content: str) -> bytes:
        """Choices open in order: the SDK's helper fails where one comes before choice 0."""
        contents = ['""'] * (index - self._n_begun) + [content]
        opening = [
            self._event(
                self._n_begun + i,
                f'{{"role":"assistant","content":{content},"refusal":null}}',
                "null",
                "null",
            )
            for i, content in enumerate(contents)
        ]
        self._n_begun = index + 1
        return b"".join(opening)

    def _event(self, index: int, delta: str, logprobs: str, reason: str) -> bytes:
        return self._frame.event(
            f'{{"index":{index},"delta":{delta},"logprobs":{logprobs},"finish_reason":{reason}}}'
        )


@dataclass
class _Call:
    """A call while it is put together."""

    id: str
    name: str
    arguments: list[str] = field(default_factory=list[str])

    def whole(self) -> CalledFunction:
        return CalledFunction(name=self.name, arguments="".join(self.arguments))


@dataclass
class _Choice:
    """A choice while it is put together."""

    content: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    calls: list[_Call] = field(default_factory=list[_Call])
    scores: list[TokenScore] = field(default_factory=list[TokenScore])
    reason: ChatEndReason = "stop"

    def take(self, part: Part) -> None:
        match part:
            case Content(text):
                self.content.append(text)
            case Reasoning(text):
                self.reasoning.append(text)
            case CallBegin(_, id, name):
                self.calls.append(_Call(id, name))
            case CallArguments(index, text):
                self.calls[index].arguments.append(text)
            case _:
                assert_never(part)

    def message(self, legacy: bool) -> AnswerMessage:
        content = "".join(self.content)
        reasoning = "".join(self.reasoning) or None
        message = AnswerMessage(
            content=content if content or not self.calls else None,
            reasoning_content=reasoning,
            reasoning=reasoning,
        )
        if self.calls and legacy:
            message.function_call = self.calls[0].whole()
        elif self.calls:
            message.tool_calls = [AnswerCall(id=c.id, function=c.whole()) for c in self.calls]
        return message


class ChatWhole:
    """Writes the answers of one request as one object. `logprobs`: they were asked for."""

    def __init__(self, turns: Turns, n: int, head: Head, legacy: bool, logprobs: bool):
        self._turns = turns
        self._choices = [_Choice() for _ in range(n)]
        self._head = head
        self._legacy = legacy
        self._logprobs = logprobs

    def write(self, event: AnswerEvent) -> bytes:
        for said in self._turns.read(event):
            match said:
                case Said(index, part, scores):
                    self._choices[index].take(part)
                    self._choices[index].scores += scores
                case TurnEnd(index, _, scores):
                    self._choices[index].reason = _end_reason(said, self._legacy)
                    self._choices[index].scores += scores
                case Tokens():
                    return self._whole(said)
                case _:
                    assert_never(said)
        return b""

    def _whole(self, tokens: Tokens) -> bytes:
        answer = ChatCompletion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=[
                ChatChoice(
                    index=index,
                    message=choice.message(self._legacy),
                    logprobs=chat_logprobs(choice.scores) if self._logprobs else None,
                    finish_reason=choice.reason,
                )
                for index, choice in enumerate(self._choices)
            ],
            usage=Usage.of(tokens),
            system_fingerprint=self._head.system_fingerprint,
        )
        return answer.model_dump_json().encode()
