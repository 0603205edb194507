"""TGI's way to tell tokens, and POST /chat_tokenize."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.api.body import json_body
from server.api.deps import AppServices, until_gone
from server.api.openapi import Sent, gives, sent
from server.api.prompts import Conversation
from server.api.tgi.errors import TGI_ERRORS, TgiRoute
from server.api.wire import Root
from server.ipc import Tokenize, Tokenized

router = APIRouter(route_class=TgiRoute)


class PlacedToken(Sent):
    """A token and which bytes of the text it is; what was added to the text is none of them."""

    id: int
    text: str
    start: int
    stop: int


class ChatTokens(Sent):
    """The prompt of a conversation."""

    tokenize_response: list[PlacedToken]
    templated_text: str


class PlacedTokens(Root[list[PlacedToken]]):
    """The tokens of a text."""


def placed(found: Tokenized, text: str) -> list[PlacedToken]:
    """Where each token lies. Tokenizers may add a space or control tokens around the text."""
    raw = text.encode()
    at = -b"".join(found.pieces).rfind(raw)
    if at > 0:  # spelled otherwise than it was written
        return [
            PlacedToken(id=id, text=piece.decode(errors="replace"), start=0, stop=0)
            for id, piece in zip(found.tokens, found.pieces, strict=True)
        ]
    tokens: list[PlacedToken] = []
    for id, piece in zip(found.tokens, found.pieces, strict=True):
        start, at = at, at + len(piece)
        start, stop = (min(max(0, end), len(raw)) for end in (start, at))
        told = raw[start:stop].decode(errors="replace")
        tokens.append(PlacedToken(id=id, text=told, start=start, stop=stop))
    return tokens


@router.post("/chat_tokenize", responses=gives(ChatTokens) | TGI_ERRORS)
async def chat_tokenize(
    request: Request,
    services: AppServices,
    body: Annotated[Conversation, Depends(json_body(Conversation))],
) -> Response:
    """The prompt that a chat completion would begin with, and its tokens, as TGI tells them."""
    job = await body.job(request, services)
    prompt = await body.prompt(request, job.worker)
    question = Tokenize(prompt.text, literal=prompt.literal)
    async with until_gone(request):
        found = await job.worker.ask(question, Tokenized)
    tokens = placed(found, prompt.text)
    return sent(ChatTokens(tokenize_response=tokens, templated_text=prompt.text), job.headers)
