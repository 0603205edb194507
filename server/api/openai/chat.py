"""POST /v1/chat/completions."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from server.api.answers import End, EndReason, Piece, Tokens
from server.api.body import json_body
from server.api.deps import AppServices, until_gone
from server.api.openai.reply import Choice, reply
from server.api.openai.schema import ChunkFrame, GenerationBody, Head, MaxTokens, Usage, encode
from server.chat.format import chat_format

INLINE_BYTES = 64 * 1024
"""Bodies up to this size are rendered on the event loop."""

router = APIRouter()


class _Lenient(BaseModel):
    """Keeps the fields it does not name: templates may use them."""

    model_config = ConfigDict(frozen=True, extra="allow")


def _check_part_type(value: object) -> object:
    if value not in ("text", "refusal"):
        raise PydanticCustomError(
            "unsupported",
            "only text and refusal parts are served, got {kind}",
            {"kind": json.dumps(value)[:60]},
        )
    return value


class ContentPart(_Lenient):
    """A text of a message's content."""

    type: Annotated[str, BeforeValidator(_check_part_type)]
    text: str = ""
    refusal: str = ""


def _content_kind(value: object) -> Literal["<text>", "<parts>"]:
    return "<parts>" if isinstance(value, list | tuple) else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[tuple[ContentPart, ...], Tag("<parts>")],
    Discriminator(_content_kind),
]


class FunctionCall(_Lenient):
    """What an assistant called. Arguments are a JSON string on the wire."""

    name: str
    arguments: object = None


class ToolCall(_Lenient):
    """One call of an assistant's message."""

    function: FunctionCall


class Message(_Lenient):
    """One message. Fields that are not named here reach the template as they are."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    tool_calls: tuple[ToolCall, ...] | None = None

    def for_template(self) -> dict[str, object]:
        """As templates expect it: text content, calls with parsed arguments, nothing null.

        Content stays null beside tool calls, which templates for tools test for.
        """
        fields: dict[str, object] = {
            name: value for name, value in (self.model_extra or {}).items() if value is not None
        }
        fields |= {"role": self.role, "content": _text(self.content)}
        if self.tool_calls:
            fields["tool_calls"] = [_parsed_call(call) for call in self.tool_calls]
            if self.content is None:
                fields["content"] = None
        return fields


def _text(content: str | tuple[ContentPart, ...] | None) -> str:
    if isinstance(content, tuple):
        return "\n".join(part.text or part.refusal for part in content)
    return content or ""


def _parsed_call(call: ToolCall) -> Mapping[str, object]:
    fields = call.model_dump()
    arguments = call.function.arguments
    if isinstance(arguments, str):
        # A model may have written bad JSON; its template still shows what it wrote.
        with suppress(ValueError):
            arguments = json.loads(arguments or "{}")
    fields["function"]["arguments"] = arguments
    return fields


class ChatCompletionRequest(GenerationBody):
    """The body."""

    messages: tuple[Message, ...] = Field(min_length=1)
    max_completion_tokens: MaxTokens = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, object] = Field(default_factory=dict[str, object])

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class AnswerMessage(BaseModel):
    """An assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One whole choice."""

    index: int
    message: AnswerMessage
    logprobs: None = None
    finish_reason: EndReason


class ChatCompletion(BaseModel):
    """The whole answer. A chunk of a stream has a `delta` where a choice has its `message`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str


class ChatWire:
    """Writes one chat answer, in chunks or whole."""

    prompt_param = "messages"

    def __init__(self, head: Head, include_usage: bool):
        self._head = head
        self._frame = ChunkFrame("chat.completion.chunk", head, include_usage)
        self._n_begun = 0

    def piece(self, piece: Piece) -> bytes:
        delta = f'{{"content":{encode(piece.text)}}}'
        return self._role_once(piece.index) + self._chunk(piece.index, delta, "null")

    def end(self, end: End) -> bytes:
        return self._role_once(end.index) + self._chunk(end.index, "{}", f'"{end.reason}"')

    def usage(self, tokens: Tokens) -> bytes:
        return self._frame.usage(tokens)

    def whole(self, choices: Sequence[Choice], tokens: Tokens) -> bytes:
        answer = ChatCompletion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=[
                ChatChoice(
                    index=index,
                    message=AnswerMessage(content=choice.text),
                    finish_reason=choice.reason,
                )
                for index, choice in enumerate(choices)
            ],
            usage=Usage.of(tokens),
            system_fingerprint=self._head.system_fingerprint,
        )
        return answer.model_dump_json().encode()

    def _role_once(self, index: int) -> bytes:
        """The chunk that opens a choice, together with the first that has content.

        Choices open in order: the SDK's helper for streams fails where one comes before choice 0.
        """
        opening = range(self._n_begun, index + 1)
        self._n_begun = max(self._n_begun, index + 1)
        delta = '{"role":"assistant","content":"","refusal":null}'
        return b"".join(self._chunk(i, delta, "null") for i in opening)

    def _chunk(self, index: int, delta: str, reason: str) -> bytes:
        return self._frame.event(
            f'{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":{reason}}}'
        )


@router.post("/chat/completions")
async def create_chat_completion(
    request: Request,
    services: AppServices,
    body: Annotated[ChatCompletionRequest, Depends(json_body(ChatCompletionRequest))],
) -> Response:
    """Answer a conversation."""
    async with until_gone(request):
        worker = await services.worker(request, body.model)
    add_generation_prompt = body.add_generation_prompt
    if add_generation_prompt is None:
        add_generation_prompt = not body.continue_final_message
    chat = chat_format(worker.config.template, worker.info)
    messages = [message.for_template() for message in body.messages]
    write = partial(
        chat.prompt,
        messages,
        body.chat_template_kwargs,
        add_generation_prompt,
        body.continue_final_message,
    )
    # A long conversation takes a while, which streams should not notice.
    long = len(await request.body()) > INLINE_BYTES
    prompt = await asyncio.to_thread(write) if long else write()
    wire = ChatWire(Head.new("chatcmpl", worker.model, worker.info), body.include_usage)
    return await reply(request, services, body, worker, [prompt], wire)
