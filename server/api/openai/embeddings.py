"""POST /v1/embeddings."""

import math
import struct
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import Field, PlainValidator
from starlette.responses import Response

from server.api.asking import Asking
from server.api.body import Body, json_body
from server.api.deps import AppServices, aside
from server.api.openai.inputs import WIRE_FORM, Input, read_inputs
from server.api.openapi import Sent, gives, sent
from server.errors import InvalidRequest
from server.ipc import Embed, Embedded

MAX_INPUTS = 2048

router = APIRouter()


def _read_inputs(value: object) -> tuple[Input, ...]:
    inputs = read_inputs(value)
    if len(inputs) > MAX_INPUTS:
        raise ValueError(f"{len(inputs):,} inputs, at most {MAX_INPUTS:,}")
    for i, item in enumerate(inputs):
        if not item:
            which = f"item {i}" if isinstance(value, list) else "it"
            raise ValueError(f"{which} is empty, and has no embedding")
    return inputs


class EmbeddingRequest(Body):
    """The body."""

    model: str
    input: Annotated[
        tuple[Input, ...],
        PlainValidator(_read_inputs, json_schema_input_type=WIRE_FORM),
    ]
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="base64: of little-endian 32-bit floats"
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="keep so many numbers of each vector, scaled to length 1"
    )


class Embedding(Sent):
    """The vector of one input, of length 1; as a text if base64 was asked for."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Sent):
    """What a request took, in tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Sent):
    """The vectors, in the order of their inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


@router.post("/embeddings", responses=gives(EmbeddingList))
async def create_embedding(
    request: Request,
    services: AppServices,
    body: Annotated[EmbeddingRequest, Depends(json_body(EmbeddingRequest))],
) -> Response:
    """Vectors of one or more texts."""
    asking = await Asking.begin(request, services, body.model, body.extras)
    n_embd = asking.worker.info.n_embd
    if body.dimensions is not None and body.dimensions > n_embd:
        raise InvalidRequest(
            f"dimensions: {body.dimensions:,}, the model's vectors have {n_embd:,}",
            param="dimensions",
        )
    embedded = await asking.ask(Embed(body.input), Embedded)

    def write() -> Response:
        n = sum(embedded.n_tokens)
        written = EmbeddingList(
            data=[
                Embedding(index=i, embedding=_encoded(_cut(raw, body.dimensions), body))
                for i, raw in enumerate(embedded.vectors)
            ],
            model=asking.worker.model,
            usage=EmbeddingUsage(prompt_tokens=n, total_tokens=n),
        )
        return sent(written, asking.headers)

    return await aside(sum(map(len, embedded.vectors)), write)


def _cut(raw: bytes, dimensions: int | None) -> bytes:
    """The first numbers of a vector, scaled to length 1 again."""
    if dimensions is None or 4 * dimensions == len(raw):
        return raw
    kept = _numbers(raw[: 4 * dimensions])
    length = math.hypot(*kept) or 1.0
    return struct.pack(f"<{dimensions}f", *(x / length for x in kept))


def _encoded(raw: bytes, body: EmbeddingRequest) -> list[float] | str:
    if body.encoding_format == "base64":
        return b64encode(raw).decode()
    return [*_numbers(raw)]


def _numbers(raw: bytes) -> Sequence[float]:
    return struct.unpack(f"<{len(raw) // 4}f", raw)
