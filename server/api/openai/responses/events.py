"""The events of a streamed response, as the API's document describes them.

`writer` writes them: most of their text is the same each time.
"""

from typing import Literal

from server.api.openai.logprobs import TokenLogprob
from server.api.openai.responses.resource import (
    OutputItem,
    OutputText,
    ReasoningText,
    ResponseObject,
)
from server.api.openapi import ErrorDetail, Sent


class _Event(Sent):
    sequence_number: int
    """From 0, without a gap."""


class LifecycleEvent(_Event):
    """The response has begun, or ended."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: ResponseObject


class _ItemEvent(_Event):
    output_index: int


class OutputItemEvent(_ItemEvent):
    """An item begins, or is complete."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    item: OutputItem


class _PartEvent(_ItemEvent):
    item_id: str
    content_index: int


class ContentPartEvent(_PartEvent):
    """A part of an item begins, or is complete."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    part: OutputText | ReasoningText


class TextDeltaEvent(_PartEvent):
    """More text for the user."""

    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: list[TokenLogprob]


class TextDoneEvent(_PartEvent):
    """All of a text for the user."""

    type: Literal["response.output_text.done"]
    text: str
    logprobs: list[TokenLogprob]


class ReasoningDeltaEvent(_PartEvent):
    """More reasoning."""

    type: Literal["response.reasoning_text.delta"]
    delta: str


class ReasoningDoneEvent(_PartEvent):
    """All of some reasoning."""

    type: Literal["response.reasoning_text.done"]
    text: str


class ArgumentsDeltaEvent(_ItemEvent):
    """More of a call's arguments."""

    type: Literal["response.function_call_arguments.delta"]
    item_id: str
    delta: str


class ArgumentsDoneEvent(_ItemEvent):
    """All of a call's arguments."""

    type: Literal["response.function_call_arguments.done"]
    item_id: str
    name: str
    arguments: str


class ErrorEvent(_Event):
    """The response fails. Its fields stand twice, where one or another client looks for them."""

    type: Literal["error"]
    code: str | None
    message: str
    param: str | None
    error: ErrorDetail


ResponseEvent = (
    LifecycleEvent
    | OutputItemEvent
    | ContentPartEvent
    | TextDeltaEvent
    | TextDoneEvent
    | ReasoningDeltaEvent
    | ReasoningDoneEvent
    | ArgumentsDeltaEvent
    | ArgumentsDoneEvent
    | ErrorEvent
)
