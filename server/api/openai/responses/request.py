"""The body of POST /responses."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from server.api.body import Body
from server.api.openai.logprobs import MAX_TOP
from server.api.openai.reasoning import Effort, template_variables
from server.api.openai.response_format import NAME, AnswerFormat, Schema, json_grammar
from server.api.openai.responses.items import Item, Message
from server.api.openai.responses.tools import Tools
from server.api.openai.schema import MaxTokens, Stop
from server.api.openai.templates import Templated
from server.api.openapi import sampling_fields
from server.errors import InvalidRequest
from server.ipc import Grammar

MAX_METADATA = 16

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
INCLUDABLE = (LOGPROBS, ENCRYPTED)


class ReasoningOptions(Body):
    """`reasoning`."""

    effort: Effort | None = Field(
        default=None, description="passed to the chat template; none: no thinking at all"
    )
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        default=None, description="none is made: the reasoning itself is sent"
    )


class TextFormat(Body):
    """`text.format`. A schema is always enforced, `strict` or not."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = Field(default=None, pattern=NAME)
    schema_: Schema | None = Field(
        default=None, alias="schema", description="required if the type is json_schema"
    )
    description: str | None = None
    strict: bool | None = None

    @property
    def grammar(self) -> Grammar | None:
        """Raises InvalidRequest."""
        match self.type:
            case "text":
                return None
            case "json_object":
                return json_grammar({"type": "object"}, "text.format")
            case "json_schema":
                for field, value in (("name", self.name), ("schema", self.schema_)):
                    if value is None:
                        path = f"text.format.{field}"
                        raise InvalidRequest(f"{path}: required by this type", param=path)
                assert self.schema_ is not None
                return json_grammar(self.schema_, "text.format.schema")


class TextOptions(Body):
    """`text`."""

    format: TextFormat = TextFormat()
    verbosity: Literal["low", "medium", "high"] | None = None


def _read_input(value: object) -> object:
    """A string is one message of the user's."""
    return (Message(role="user", content=value),) if isinstance(value, str) else value


def _refuse(value: object) -> object:
    shown = json.dumps(value)[:60]
    raise PydanticCustomError("unsupported", "is not served here, got {shown}", {"shown": shown})


NotServed = Annotated[object, BeforeValidator(_refuse)]


class PromptRequest(Tools, AnswerFormat, Templated):
    """The fields that decide over a response's prompt."""

    model: str
    input: Annotated[
        tuple[Item, ...],
        BeforeValidator(_read_input, json_schema_input_type=str | tuple[Item, ...]),
    ] = Field(default=(), description="a text of the user's, or items")
    instructions: str | None = None
    previous_response_id: str | None = None
    text: TextOptions = TextOptions()
    reasoning: ReasoningOptions = ReasoningOptions()
    truncation: Literal["auto", "disabled"] = Field(
        default="disabled", description="auto: leave out the oldest exchanges if need be"
    )
    max_output_tokens: MaxTokens = None
    conversation: NotServed = None
    prompt: NotServed = None

    @property
    def variables(self) -> Mapping[str, object]:
        """What the template is told beside the messages. Raises InvalidRequest."""
        effort = self.reasoning.effort
        return template_variables(self.chat_template_kwargs, effort, "reasoning.effort")

    def _asked(self) -> Iterator[Grammar]:
        grammar = self.text.format.grammar
        if grammar is not None:
            yield grammar
        yield from super()._asked()

    @property
    def unserved(self) -> dict[str, object]:
        """All that changes nothing, by its path, and sampling parameters."""
        parts = {"reasoning": self.reasoning, "text": self.text, "text.format": self.text.format}
        ignored: dict[str, object] = {
            f"{path}.{name}": value
            for path, part in parts.items()
            for name, value in part.extras.items()
        }
        if self.reasoning.summary in ("concise", "detailed"):
            ignored["reasoning.summary"] = self.reasoning.summary
        if self.text.verbosity in ("low", "high"):
            ignored["text.verbosity"] = self.text.verbosity
        return {**self.extras, **self.unserved_tools, **ignored}


MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]


class ResponsesRequest(PromptRequest):
    """The body. Its extra fields are sampling parameters, or not served."""

    model_config = ConfigDict(json_schema_extra=sampling_fields)

    stream: bool = False
    stream_options: dict[str, object] | None = None
    store: bool | None = Field(
        default=None, description="true unless the server keeps no responses"
    )
    background: bool = Field(default=False, description="answer at once, for the client to ask")
    include: tuple[str, ...] = ()
    max_tool_calls: int | None = Field(
        default=None, ge=1, description="limits built-in tools, of which there are none"
    )
    top_logprobs: int = Field(default=0, ge=0, le=MAX_TOP)
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict[str, str], max_length=MAX_METADATA
    )
    service_tier: str = "auto"
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    stop: Stop = ()
    cache_prompt: bool = True

    @field_validator("background")
    @classmethod
    def _is_stored(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("store") is False:
            raise ValueError("a background response must be stored, but store is false")
        return value

    @field_validator("stream_options")
    @classmethod
    def _only_streamed(cls, value: object, info: ValidationInfo) -> object:
        if not info.data.get("stream"):
            raise ValueError("only allowed when stream is true")
        return value

    @property
    def n_logprobs(self) -> int | None:
        """How many alternatives are wanted for each token; None: no logprobs at all."""
        return self.top_logprobs if LOGPROBS in self.include else None

    @property
    def unserved(self) -> dict[str, object]:
        ignored: dict[str, object] = {
            f"include.{i} ({what})": what
            for i, what in enumerate(self.include)
            if what not in INCLUDABLE
        }
        if self.service_tier not in ("auto", "default"):
            ignored["service_tier"] = self.service_tier
        return {**super().unserved, **ignored}
