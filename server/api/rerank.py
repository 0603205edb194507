"""POST /v1/rerank and POST /v2/rerank: documents in the order of how well they answer a query.

The shape is the one that Cohere's and Jina's clients share.
"""

import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BeforeValidator, Field
from starlette.responses import JSONResponse, Response

from server.api.asking import Asking
from server.api.body import Body, json_body
from server.api.deps import AppServices
from server.api.openapi import Sent, gives
from server.api.wire import Given
from server.ipc import Rank, Ranked

MAX_DOCUMENTS = 2048

router = APIRouter()


class Document(Given):
    """A document with fields of its own, of which the text counts."""

    text: str


def _read_document(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


class RerankRequest(Body):
    """The body."""

    model: str
    query: str = Field(min_length=1)
    documents: tuple[
        Annotated[
            Document,
            BeforeValidator(_read_document, json_schema_input_type=str | Document),
        ],
        ...,
    ] = Field(min_length=1, max_length=MAX_DOCUMENTS)
    top_n: int | None = Field(default=None, ge=1, description="tell so many of the best")
    return_documents: bool = Field(default=False, description="repeat the texts in the answer")


class RankedText(Sent):
    """A document's text."""

    text: str


class RankedDocument(Sent):
    """One document by its place in the request, and how well it answers, from 0 to 1."""

    index: int
    relevance_score: float
    document: RankedText | None = Field(default=None, description="there if asked for")


class RerankUsage(Sent):
    """What a request took, in tokens."""

    prompt_tokens: int
    total_tokens: int


class RerankResponse(Sent):
    """The documents, best first."""

    id: str
    object: Literal["list"] = "list"
    model: str
    usage: RerankUsage
    results: list[RankedDocument]


@router.post("/rerank", responses=gives(RerankResponse))
async def rerank(
    request: Request,
    services: AppServices,
    body: Annotated[RerankRequest, Depends(json_body(RerankRequest))],
) -> Response:
    """Sort documents by how well they answer a query."""
    texts = tuple(document.text for document in body.documents)
    asking = await Asking.begin(request, services, body.model, body.extras)
    ranked = await asking.ask(Rank(body.query, texts), Ranked)
    scores, n = ranked.scores, sum(ranked.n_tokens)
    best = sorted(range(len(texts)), key=lambda index: -scores[index])[: body.top_n]
    written = RerankResponse(
        id=f"rerank-{uuid.uuid4().hex}",
        model=asking.worker.model,
        usage=RerankUsage(prompt_tokens=n, total_tokens=n),
        results=[
            RankedDocument(
                index=index,
                relevance_score=scores[index],
                document=RankedText(text=texts[index]) if body.return_documents else None,
            )
            for index in best
        ],
    )
    raw = written.model_dump_json(exclude_none=True)
    return Response(raw, headers=asking.headers, media_type=JSONResponse.media_type)


router.add_api_route("/v2/rerank", rerank, methods=["POST"], include_in_schema=False)
