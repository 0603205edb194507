"""The response object and its output items, as they are sent and kept."""

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from server.api.answers import Tokens
from server.api.openai.logprobs import TokenLogprob
from server.api.openai.responses.items import Status
from server.api.openapi import Sent, is_none

ResponseStatus = Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]


Fields = Mapping[str, object]


class OutputText(Sent):
    """Text for the user."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Fields] = Field(default=[])
    """None are made here."""
    logprobs: list[TokenLogprob] = Field(default=[])


class OutputMessage(Sent):
    """The model's answer."""

    id: str
    type: Literal["message"] = "message"
    status: Status
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class ReasoningText(Sent):
    """Text that the model wrote for itself."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class ReasoningItem(Sent):
    """The model's thoughts before its answer."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    status: Status
    summary: list[Fields] = Field(default=[])
    """None is made here."""
    content: list[ReasoningText]
    encrypted_content: str | None = None


class FunctionToolCall(Sent):
    """The model calls a function."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: Status
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | ReasoningItem | FunctionToolCall


class InputTokensDetails(Sent):
    """Where the input's tokens came from."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Sent):
    """What the output's tokens were for."""

    reasoning_tokens: int


class ResponseUsage(Sent):
    """What a response took, in tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, tokens: Tokens) -> "ResponseUsage":
        return cls(
            input_tokens=tokens.prompt,
            input_tokens_details=InputTokensDetails(cached_tokens=tokens.cached),
            output_tokens=tokens.completion,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=tokens.reasoning),
            total_tokens=tokens.prompt + tokens.completion,
        )


class ResponseFault(Sent):
    """Why a response failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(Sent):
    """Why a response is cut off."""

    reason: Literal["max_output_tokens"]


class FunctionTool(Sent):
    """A function that the model might call."""

    type: Literal["function"] = "function"
    name: str
    description: str | None
    parameters: Fields | None
    strict: bool


class ResponseObject(Sent):
    """One response at some moment of its life. What was asked for comes with it."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus
    background: bool
    completed_at: int | None = None
    error: ResponseFault | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[OutputItem] = Field(default=[])
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None = Field(default=None, exclude_if=is_none)
    reasoning: Mapping[str, str | None]
    safety_identifier: str | None = Field(default=None, exclude_if=is_none)
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: Fields
    tool_choice: str | Fields
    tools: list[FunctionTool]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = Field(default=None, exclude_if=is_none)
    user: str | None = Field(default=None, exclude_if=is_none)
    metadata: Mapping[str, str]

    def failed(self, fault: ResponseFault, output: list[OutputItem]) -> "ResponseObject":
        return self.model_copy(update={"status": "failed", "error": fault, "output": output})

    def ended(
        self, status: ResponseStatus, output: list[OutputItem], tokens: Tokens
    ) -> "ResponseObject":
        """With its output, `incomplete` where it was cut off."""
        cut_off = IncompleteDetails(reason="max_output_tokens") if status == "incomplete" else None
        return self.model_copy(
            update={
                "status": status,
                "output": output,
                "usage": ResponseUsage.of(tokens),
                "incomplete_details": cut_off,
                "completed_at": int(time.time()) if status == "completed" else None,
            }
        )


class DeletedResponse(Sent):
    """The answer to a deletion."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputTokens(Sent):
    """The answer to a count."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class ItemList(Sent):
    """One page of a response's input."""

    object: Literal["list"] = "list"
    data: Sequence[Fields]
    first_id: str
    last_id: str
    has_more: bool
