"""POST /v1/completions."""

from collections.abc import Sequence
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, PlainValidator
from starlette.responses import Response

from server.api.answers import End, EndReason, Piece, Tokens
from server.api.body import json_body
from server.api.deps import AppServices, until_gone
from server.api.openai.reply import Choice, reply
from server.api.openai.schema import (
    MAX_CHOICES,
    ChunkFrame,
    GenerationBody,
    Head,
    MaxTokens,
    Usage,
    encode,
)
from server.errors import InvalidRequest
from server.ipc import Prompt, Text

DEFAULT_MAX_TOKENS = 16

router = APIRouter()


def _read_prompts(value: object) -> tuple[Prompt, ...]:
    """A text, a list of texts, token ids, or a list of lists of token ids."""
    if isinstance(value, str):
        return (Text(value),)
    if not isinstance(value, list) or not value:
        raise ValueError("must be a text, texts, token ids or lists of token ids, not empty")
    items = cast("list[object]", value)
    match items[0]:
        case str():
            return tuple(Text(_a_text(i, item)) for i, item in enumerate(items))
        case list():
            return tuple(_token_ids(item, f"{i}.") for i, item in enumerate(items))
        case _:
            return (_token_ids(items, ""),)


def _a_text(index: int, item: object) -> str:
    if not isinstance(item, str):
        raise ValueError(f"item {index} is not a text, but item 0 is")
    return item


def _token_ids(value: object, path: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"item {path.rstrip('.')} must be token ids, at least one")
    ids = cast("list[object]", value)
    for i, id in enumerate(ids):
        # A JSON true is an int in Python.
        if type(id) is not int:
            raise ValueError(f"item {path}{i} is not a token id")
    return tuple(cast("list[int]", ids))


class CompletionRequest(GenerationBody):
    """The body."""

    prompt: Annotated[tuple[Prompt, ...], PlainValidator(_read_prompts)]
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS


class CompletionChoice(BaseModel):
    """One whole choice."""

    text: str
    index: int
    logprobs: None = None
    finish_reason: EndReason


class Completion(BaseModel):
    """The whole answer. A chunk of a stream looks the same, and its choice may go on."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str


class CompletionWire:
    """Writes one completion, in chunks or whole."""

    prompt_param = "prompt"

    def __init__(self, head: Head, include_usage: bool):
        self._head = head
        self._frame = ChunkFrame("text_completion", head, include_usage)

    def piece(self, piece: Piece) -> bytes:
        return self._chunk(piece.index, encode(piece.text), "null")

    def end(self, end: End) -> bytes:
        return self._chunk(end.index, '""', f'"{end.reason}"')

    def usage(self, tokens: Tokens) -> bytes:
        return self._frame.usage(tokens)

    def whole(self, choices: Sequence[Choice], tokens: Tokens) -> bytes:
        answer = Completion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=[
                CompletionChoice(text=choice.text, index=index, finish_reason=choice.reason)
                for index, choice in enumerate(choices)
            ],
            usage=Usage.of(tokens),
            system_fingerprint=self._head.system_fingerprint,
        )
        return answer.model_dump_json().encode()

    def _chunk(self, index: int, text: str, reason: str) -> bytes:
        return self._frame.event(
            f'{{"text":{text},"index":{index},"logprobs":null,"finish_reason":{reason}}}'
        )


@router.post("/completions")
async def create_completion(
    request: Request,
    services: AppServices,
    body: Annotated[CompletionRequest, Depends(json_body(CompletionRequest))],
) -> Response:
    """Continue one or more texts."""
    n_choices = len(body.prompt) * body.n
    if n_choices > MAX_CHOICES:
        raise InvalidRequest(
            f"{len(body.prompt)} prompts x n = {n_choices} choices, at most {MAX_CHOICES}",
            param="prompt",
        )
    async with until_gone(request):
        worker = await services.worker(request, body.model)
    _check_vocabulary(body.prompt, worker.info.n_vocab)
    wire = CompletionWire(Head.new("cmpl", worker.model, worker.info), body.include_usage)
    return await reply(request, services, body, worker, body.prompt, wire)


def _check_vocabulary(prompts: Sequence[Prompt], n_vocab: int) -> None:
    """llama.cpp would abort on an id that the model does not have."""
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, Text):
            continue
        for i, id in enumerate(prompt):
            if not 0 <= id < n_vocab:
                path = f"prompt.{i}" if len(prompts) == 1 else f"prompt.{number}.{i}"
                raise InvalidRequest(
                    f"{path}: token id {id}, the vocabulary has {n_vocab} tokens", param=path
                )
