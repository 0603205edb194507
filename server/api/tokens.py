"""POST /tokenize, POST /detokenize and GET /tokenizer_info.

Bodies are vLLM's (`prompt`, `messages`), llama-server's (`content`) or TGI's (`inputs`), told apart
by their keys.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Literal, assert_never, cast

from fastapi import APIRouter, Depends, Request
from pydantic import Discriminator, Tag
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from server.api.asking import Asking
from server.api.body import Body, json_body
from server.api.default_model import NamedModel, default_model
from server.api.deps import AppServices, Services, until_gone
from server.api.openapi import Sent, gives, sent
from server.api.prompts import Conversation
from server.api.tgi.errors import TGI_ERRORS, TgiRoute
from server.api.tgi.tokens import PlacedToken, PlacedTokens, placed
from server.api.wire import Root
from server.chat.format import chat_format
from server.errors import InvalidRequest
from server.ipc import Detokenize, Detokenized, Tokenize, Tokenized
from server.pool.worker import Worker


class _Route(TgiRoute):
    """Errors are told in TGI's way to those who ask in it."""

    async def speaks_tgi(self, request: Request) -> bool:
        try:
            return _kind(json.loads(await request.body())) == "<inputs>"
        except (ValueError, HTTPException, ClientDisconnect):
            return False


router = APIRouter()
tokenizing = APIRouter(route_class=_Route)


class _Body(Body):
    model: str = ""


class TokenizePrompt(_Body):
    """vLLM's, of a text, in which control tokens are recognised. The BOS counts as added."""

    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool = False


class TokenizeMessages(Conversation):
    """vLLM's, of a conversation. By default: the tokens of a chat completion's prompt."""

    add_special_tokens: bool = True
    return_token_strs: bool = False


class TokenizeContent(_Body):
    """llama-server's, of a text."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class TokenizeInputs(_Body):
    """TGI's, of a text, in which control tokens are recognised. Parameters change nothing."""

    inputs: str
    add_special_tokens: bool = True
    parameters: Mapping[str, object] = {}


def _kind(body: object) -> str | None:
    keys = ("messages", "prompt", "content", "inputs")
    fields = cast("Mapping[str, object]", body if isinstance(body, Mapping) else {})
    return next((f"<{key}>" for key in keys if fields.get(key) is not None), None)


class TokenizeRequest(Root[TokenizePrompt | TokenizeMessages | TokenizeContent | TokenizeInputs]):
    """A text or a conversation, told apart by their keys."""

    root: Annotated[
        Annotated[TokenizePrompt, Tag("<prompt>")]
        | Annotated[TokenizeMessages, Tag("<messages>")]
        | Annotated[TokenizeContent, Tag("<content>")]
        | Annotated[TokenizeInputs, Tag("<inputs>")],
        Discriminator(
            _kind,
            custom_error_type="no_text",
            custom_error_message="one of prompt, messages, content and inputs is required",
        ),
    ]


class DetokenizeRequest(_Body):
    """Token ids."""

    tokens: tuple[int, ...]


class TokenList(Sent):
    """vLLM's answer. Bytes that are no text by themselves are replacement characters."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class TokenIds(Sent):
    """llama-server's answer."""

    tokens: list[int]


class TokenPiece(Sent):
    """One token; its bytes where they are no text by themselves."""

    id: int
    piece: str | list[int]


class TokenPieces(Sent):
    """llama-server's answer with pieces."""

    tokens: list[TokenPiece]


class DetokenizeResponse(Sent):
    """The text twice: `prompt` is vLLM's name, `content` llama-server's."""

    prompt: str
    content: str


class TokenizerInfo(Sent):
    """What clients need to write prompts themselves. Null: the model has none."""

    model: str
    tokenizer_class: Literal["llama.cpp"] = "llama.cpp"
    model_max_length: int
    vocab_size: int
    add_bos_token: bool
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None


@tokenizing.post(
    "/tokenize",
    responses=gives(TokenList | TokenPieces | TokenIds | list[PlacedToken]) | TGI_ERRORS,
)
async def tokenize(
    request: Request,
    services: AppServices,
    body: Annotated[TokenizeRequest, Depends(json_body(TokenizeRequest))],
) -> Response:
    """The tokens of a text or of a conversation."""
    asked = body.root
    if isinstance(asked, TokenizeMessages):
        job = await asked.job(request, services)
        worker, headers = job.worker, job.headers
    else:
        asking = await _begin(request, services, asked)
        worker, headers = asking.worker, asking.headers
    question = await _question(request, asked, worker)
    async with until_gone(request):
        found = await worker.ask(question, Tokenized)
    if isinstance(asked, TokenizeInputs):
        return sent(PlacedTokens(placed(found, asked.inputs)), headers)
    return sent(_answer(asked, found, worker.info.n_ctx), headers)


@router.post("/detokenize", responses=gives(DetokenizeResponse))
async def detokenize(
    request: Request,
    services: AppServices,
    body: Annotated[DetokenizeRequest, Depends(json_body(DetokenizeRequest))],
) -> Response:
    """The text of token ids, control tokens written out."""
    asking = await _begin(request, services, body)
    async with until_gone(request):
        text = (await asking.worker.ask(Detokenize(body.tokens), Detokenized)).text
    return sent(DetokenizeResponse(prompt=text, content=text), asking.headers)


@router.get("/tokenizer_info", responses=gives(TokenizerInfo))
async def tokenizer_info(request: Request, services: AppServices, query: NamedModel) -> Response:
    """The model's special tokens and its chat template."""
    async with until_gone(request):
        worker = await services.worker(request, query.model or default_model(services.pool))
    info = worker.info
    template = None
    with suppress(InvalidRequest):
        template = chat_format(worker.config, info).template.source
    told = TokenizerInfo(
        model=worker.model,
        model_max_length=info.n_ctx,
        vocab_size=info.n_vocab,
        add_bos_token=info.adds_bos,
        bos_token=info.bos or None,
        eos_token=info.eos or None,
        pad_token=info.pad or None,
        chat_template=template,
    )
    return sent(told)


async def _begin(request: Request, services: Services, body: _Body) -> Asking:
    model = body.model or default_model(services.pool)
    return await Asking.begin(request, services, model, body.extras)


_Asked = TokenizePrompt | TokenizeMessages | TokenizeContent


async def _question(request: Request, asked: _Asked | TokenizeInputs, worker: Worker) -> Tokenize:
    match asked:
        case TokenizePrompt():
            return Tokenize(asked.prompt, asked.add_special_tokens)
        case TokenizeMessages():
            prompt = await asked.prompt(request, worker)
            return Tokenize(prompt.text, asked.add_special_tokens, literal=prompt.literal)
        case TokenizeContent():
            return Tokenize(asked.content, asked.add_special, asked.parse_special)
        case TokenizeInputs():
            return Tokenize(asked.inputs, asked.add_special_tokens)
        case _:
            assert_never(asked)


def _answer(asked: _Asked, found: Tokenized, n_ctx: int) -> Sent:
    tokens = [*found.tokens]
    if not isinstance(asked, TokenizeContent):
        strings = [piece.decode(errors="replace") for piece in found.pieces]
        return TokenList(
            count=len(tokens),
            max_model_len=n_ctx,
            tokens=tokens,
            token_strs=strings if asked.return_token_strs else None,
        )
    if not asked.with_pieces:
        return TokenIds(tokens=tokens)
    pairs = zip(tokens, found.pieces, strict=True)
    return TokenPieces(tokens=[TokenPiece(id=id, piece=_spelled(piece)) for id, piece in pairs])


def _spelled(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return [*piece]
