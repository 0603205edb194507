"""What a chat completion answers, as the API's document describes it."""

from typing import Literal

from pydantic import Field

from server.api.openai.logprobs import ChatLogprobs
from server.api.openai.schema import Usage
from server.api.openapi import Sent, is_none
from server.api.wire import Wire

ChatEndReason = Literal["stop", "length", "tool_calls", "function_call"]


class CalledFunction(Sent):
    """What is called. `arguments` are JSON."""

    name: str
    arguments: str


class AnswerCall(Sent):
    """One call of a function."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AnswerMessage(Sent):
    """An assistant's message. Fields that it has no use for are left out."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | None = Field(default=None, exclude_if=is_none)
    reasoning: str | None = Field(
        default=None, exclude_if=is_none, description="the same as reasoning_content"
    )
    tool_calls: list[AnswerCall] | None = Field(default=None, exclude_if=is_none)
    function_call: CalledFunction | None = Field(default=None, exclude_if=is_none)


class ChatChoice(Sent):
    """One whole choice."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatEndReason


class ChatCompletion(Sent):
    """The whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str


class CalledFunctionDelta(Wire):
    """A part of a call: the name comes first and once."""

    name: str | None = None
    arguments: str


class CallDelta(Wire):
    """A part of the call of this index: id, type and name come first and once."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunctionDelta


class MessageDelta(Wire):
    """What is new of a message; nothing in a choice's last chunk."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallDelta] | None = None
    function_call: CalledFunctionDelta | None = None


class ChatDelta(Sent):
    """What is new of a choice; its reason to end comes last."""

    index: int
    delta: MessageDelta
    logprobs: ChatLogprobs | None
    finish_reason: ChatEndReason | None


class ChatCompletionChunk(Sent):
    """A part of a streamed answer. Usage comes last, and only if asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatDelta]
    system_fingerprint: str
