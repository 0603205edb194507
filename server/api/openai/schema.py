"""Wire pieces that several OpenAI endpoints share."""

import hashlib
import json
import time
import uuid
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from server import __version__
from server.api.answers import Tokens
from server.api.body import Body
from server.api.openai.response_format import AnswerFormat
from server.api.openapi import sampling_fields
from server.api.wire import Given, Wire
from server.ipc import ModelInfo

MAX_CHOICES = 128
"""Choices of one request: prompts x n."""

MAX_N = 16
MAX_STOPS = 16

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""JSON as it goes over the wire; for a string it costs a fraction of a microsecond."""


def _read_stop(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _read_max_tokens(value: object) -> object:
    """llama-server and others take -1 for no limit."""
    return None if value == -1 else value


_StopText = Annotated[str, Field(min_length=1)]
_StopTexts = Annotated[tuple[_StopText, ...], Field(max_length=MAX_STOPS)]
_Limit = Annotated[int, Field(ge=1)] | None
_LimitOrZero = Annotated[int, Field(ge=0)] | None

Stop = Annotated[
    _StopTexts, BeforeValidator(_read_stop, json_schema_input_type=_StopText | _StopTexts)
]
MaxTokens = Annotated[
    _Limit, BeforeValidator(_read_max_tokens, json_schema_input_type=_Limit | Literal[-1])
]
MaxTokensOrZero = Annotated[
    _LimitOrZero,
    BeforeValidator(_read_max_tokens, json_schema_input_type=_LimitOrZero | Literal[-1]),
]


class StreamOptions(Given):
    """`stream_options`. `include_obfuscation` and others are accepted and change nothing."""

    include_usage: bool | None = None


class GenerationBody(AnswerFormat, Body):
    """The fields that all generating endpoints have.

    Extra fields are sampling parameters or not served; `server.api.fields` tells.
    """

    model_config = ConfigDict(json_schema_extra=sampling_fields)

    model: str
    max_tokens: MaxTokens = None
    n: int = Field(1, ge=1, le=MAX_N)
    stop: Stop = ()
    stream: bool = False
    stream_options: StreamOptions | None = None
    cache_prompt: bool = True

    @field_validator("stream_options")
    @classmethod
    def _only_streamed(cls, value: StreamOptions, info: ValidationInfo) -> StreamOptions:
        if not info.data.get("stream"):
            raise ValueError("only allowed when stream is true")
        return value

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class PromptTokensDetails(Wire):
    """Where the prompt's tokens came from."""

    cached_tokens: int
    audio_tokens: int = 0


class CompletionTokensDetails(Wire):
    """What the generated tokens were for."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(Wire):
    """What a request took, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, tokens: Tokens) -> "Usage":
        return cls(
            prompt_tokens=tokens.prompt,
            completion_tokens=tokens.completion,
            total_tokens=tokens.prompt + tokens.completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=tokens.cached),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=tokens.reasoning),
        )


class Head(NamedTuple):
    """What the whole answer and every chunk of a stream have in common."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, prefix: Literal["chatcmpl", "cmpl"], model: str, info: ModelInfo) -> "Head":
        return cls(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), model, _fingerprint(info))


def _fingerprint(info: ModelInfo) -> str:
    """Changes when the server or the way it holds the model does, as seeds then may."""
    held = (__version__, info.description, info.size_bytes, info.n_ctx, info.n_slots)
    held = (*held, info.kv_layout, info.n_gpu_layers)
    return f"fp_{hashlib.blake2b(repr(held).encode(), digest_size=5).hexdigest()}"


class ChunkFrame:
    """Chunks of one stream as SSE events, from a choice's JSON.

    All but that JSON is the same in every chunk, so it is written once: this runs per token.
    """

    def __init__(self, object: str, head: Head, include_usage: bool):
        fields = {
            "id": head.id,
            "object": object,
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.system_fingerprint,
        }
        self._before = f'data: {encode(fields)[:-1]},"choices":['
        # Null everywhere but in the last chunk, and only if usage was asked for.
        self._after = '],"usage":null}\n\n' if include_usage else "]}\n\n"

    def event(self, choice: str) -> bytes:
        """The chunk with this one choice."""
        return f"{self._before}{choice}{self._after}".encode()

    def usage(self, tokens: Tokens) -> bytes:
        """The last chunk, with no choices."""
        usage = Usage.of(tokens).model_dump_json()
        return f'{self._before}],"usage":{usage}}}\n\n'.encode()
