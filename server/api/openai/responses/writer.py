"""Writer: one response as events, and as the object that they add up to.

Every event is numbered, and named in its `event:` line. A delta comes with each token, so its
unchanging part is written once.
"""

import json
from collections.abc import Callable, Sequence
from typing import TypeVar, assert_never

from server.api.answers import Tokens
from server.api.errors import Told
from server.api.openai.logprobs import TokenLogprob, chat_logprobs
from server.api.openai.responses.items import Status, new_id, seal
from server.api.openai.responses.resource import (
    FunctionToolCall,
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseFault,
    ResponseObject,
    ResponseStatus,
)
from server.api.openai.schema import encode
from server.api.openai.turns import Said, TurnEnd
from server.chat.turn import CallArguments, CallBegin, Content, Reasoning
from server.ipc import TokenScore

Emit = Callable[[str, str], None]
"""Takes an event's type and its fields as JSON."""


class _Text:
    """A message, which has one part."""

    def __init__(self, index: int, scored: bool):
        self._id = new_id("msg")
        self._place = _place(self._id, index)
        self._output = f'"output_index":{index}'
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] | None = [] if scored else None

    def open(self, emit: Emit) -> None:
        item = OutputMessage(id=self._id, status="in_progress", content=[])
        emit("response.output_item.added", f'{self._output},"item":{item.model_dump_json()}')
        part = OutputText(text="").model_dump_json()
        emit("response.content_part.added", f'{self._place},"part":{part}')

    def delta(self, emit: Emit, text: str, scores: Sequence[TokenScore]) -> None:
        self._texts.append(text)
        logprobs = "[]"
        if self._logprobs is not None:
            told = chat_logprobs(scores)["content"]
            self._logprobs += told
            logprobs = encode(told)
        emit(
            "response.output_text.delta",
            f'{self._place},"delta":{encode(text)},"logprobs":{logprobs}',
        )

    def close(self, emit: Emit, status: Status) -> OutputItem:
        part = OutputText(text="".join(self._texts), logprobs=self._logprobs or [])
        logprobs = encode(part.logprobs)
        emit(
            "response.output_text.done",
            f'{self._place},"text":{encode(part.text)},"logprobs":{logprobs}',
        )
        emit("response.content_part.done", f'{self._place},"part":{part.model_dump_json()}')
        return OutputMessage(id=self._id, status=status, content=[part])


class _Thoughts:
    """A reasoning item, which has one part."""

    def __init__(self, index: int, sealed: bool):
        self._id = new_id("rs")
        self._place = _place(self._id, index)
        self._output = f'"output_index":{index}'
        self._texts: list[str] = []
        self._sealed = sealed

    def open(self, emit: Emit) -> None:
        item = ReasoningItem(id=self._id, status="in_progress", content=[])
        emit("response.output_item.added", f'{self._output},"item":{item.model_dump_json()}')
        part = ReasoningText(text="").model_dump_json()
        emit("response.content_part.added", f'{self._place},"part":{part}')

    def delta(self, emit: Emit, text: str) -> None:
        self._texts.append(text)
        emit("response.reasoning_text.delta", f'{self._place},"delta":{encode(text)}')

    def close(self, emit: Emit, status: Status) -> OutputItem:
        part = ReasoningText(text="".join(self._texts))
        emit("response.reasoning_text.done", f'{self._place},"text":{encode(part.text)}')
        emit("response.content_part.done", f'{self._place},"part":{part.model_dump_json()}')
        sealed = seal(part.text) if self._sealed else None
        return ReasoningItem(id=self._id, status=status, content=[part], encrypted_content=sealed)


class _Call:
    """A function call."""

    def __init__(self, index: int, call_id: str, name: str):
        self._item = FunctionToolCall(
            id=new_id("fc"), status="in_progress", call_id=call_id, name=name, arguments=""
        )
        self._output = f'"output_index":{index}'
        self._place = f'"item_id":"{self._item.id}",{self._output}'
        self._texts: list[str] = []

    def open(self, emit: Emit) -> None:
        item = self._item.model_dump_json()
        emit("response.output_item.added", f'{self._output},"item":{item}')

    def delta(self, emit: Emit, text: str) -> None:
        self._texts.append(text)
        emit("response.function_call_arguments.delta", f'{self._place},"delta":{encode(text)}')

    def close(self, emit: Emit, status: Status) -> OutputItem:
        arguments = "".join(self._texts)
        told = f'"name":{encode(self._item.name)},"arguments":{encode(arguments)}'
        emit("response.function_call_arguments.done", f"{self._place},{told}")
        return self._item.model_copy(update={"status": status, "arguments": arguments})


Output = TypeVar("Output", _Text, _Thoughts, _Call)


class Writer:
    """Writes one response. Used by one task; `response` is what has been told so far."""

    def __init__(self, response: ResponseObject, scored: bool, sealed: bool):
        self.response = response
        self._scored = scored
        self._sealed = sealed
        self._frames: list[bytes] = []
        self._n = 0
        self._open: _Text | _Thoughts | _Call | None = None
        self._output: list[OutputItem] = []
        self._cut_off = False

    def begin(self) -> list[bytes]:
        """The first events. A response that is queued is not any more after them."""
        self._tell("created")
        if self.response.status == "queued":
            self._tell("queued")
            self.response = self.response.model_copy(update={"status": "in_progress"})
        self._tell("in_progress")
        return self._take()

    def say(self, said: Said) -> list[bytes]:
        """The next part of the answer."""
        part = said.part
        match part:
            case Content(text):
                item = self._open
                if not isinstance(item, _Text):
                    item = self._start(_Text(self._next_index(), self._scored))
                item.delta(self._emit, text, said.scores)
            case Reasoning(text):
                item = self._open
                if not isinstance(item, _Thoughts):
                    item = self._start(_Thoughts(self._next_index(), self._sealed))
                item.delta(self._emit, text)
            case CallBegin(_, id, name):
                self._start(_Call(self._next_index(), id, name))
            case CallArguments(_, text):
                assert isinstance(self._open, _Call), "arguments outside of a call"
                self._open.delta(self._emit, text)
            case _:
                assert_never(part)
        return self._take()

    def end(self, end: TurnEnd) -> list[bytes]:
        """The answer is complete, or as long as it may be."""
        self._cut_off = end.reason == "length"
        if self._open is None:
            # Clients look for a message.
            self._start(_Text(0, self._scored))
        self._close("incomplete" if self._cut_off else "completed")
        return self._take()

    def finish(self, tokens: Tokens) -> None:
        """The response is whole now; `last` tells so."""
        status: ResponseStatus = "incomplete" if self._cut_off else "completed"
        self.response = self.response.ended(status, self._output, tokens)

    def last(self, stored: bool) -> list[bytes]:
        """The last event."""
        if stored != self.response.store:
            self.response = self.response.model_copy(update={"store": stored})
        self._tell("incomplete" if self._cut_off else "completed")
        return self._take()

    def cancel(self) -> list[bytes]:
        """Somebody wants no more of it. There is no event of that name."""
        self._close("incomplete")
        self.response = self.response.model_copy(
            update={"status": "cancelled", "output": self._output}
        )
        self._tell("incomplete")
        return self._take()

    def fail(self, told: Told, stored: bool) -> list[bytes]:
        """The response failed."""
        self._close("incomplete")
        self._emit("error", error_fields(told))
        failed = self.response.failed(fault_of(told), self._output)
        self.response = failed.model_copy(update={"store": stored})
        self._tell("failed")
        return self._take()

    def _next_index(self) -> int:
        """Where the next item stands. The one before it is complete."""
        self._close("completed")
        return len(self._output)

    def _start(self, item: Output) -> Output:
        self._open = item
        item.open(self._emit)
        return item

    def _close(self, status: Status) -> None:
        if self._open is None:
            return
        item = self._open.close(self._emit, status)
        index = len(self._output)
        self._emit(
            "response.output_item.done",
            f'"output_index":{index},"item":{item.model_dump_json()}',
        )
        self._output.append(item)
        self._open = None

    def _tell(self, moment: str) -> None:
        self._emit(f"response.{moment}", f'"response":{self.response.model_dump_json()}')

    def _emit(self, type: str, fields: str) -> None:
        self._frames.append(event(type, self._n, fields))
        self._n += 1

    def _take(self) -> list[bytes]:
        frames, self._frames = self._frames, []
        return frames


def error_fields(told: Told) -> str:
    """An `error` event's fields twice: the SDKs look into `error`, OpenAI's document does not."""
    fields = {"code": told.kind.code, "message": told.message, "param": told.param}
    return f"{json.dumps(fields)[1:-1]},{told.body().decode()[1:-1]}"


def failed_at(number: int, told: Told) -> bytes:
    """The event of an error that ends a stream."""
    return event("error", number, error_fields(told))


def event(type: str, number: int, fields: str) -> bytes:
    """One event; `fields` are JSON without its braces."""
    head = f'event: {type}\ndata: {{"type":"{type}","sequence_number":{number},'
    return f"{head}{fields}}}\n\n".encode()


def fault_of(told: Told) -> ResponseFault:
    """An error in the few words that a response has for it."""
    match told.kind.status:
        case 429:
            return ResponseFault(code="rate_limit_exceeded", message=told.message)
        case status if status < 500:
            return ResponseFault(code="invalid_prompt", message=told.message)
        case _:
            return ResponseFault(code="server_error", message=told.message)


def _place(id: str, index: int) -> str:
    return f'"item_id":"{id}","output_index":{index},"content_index":0'
