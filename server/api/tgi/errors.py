"""Errors as TGI tells them: `{"error", "error_type"}`.

bad requests        422  validation
an unknown model    404  validation
a full queue        429  overloaded, Retry-After
loading, stopping   503  overloaded, Retry-After
what else we know   424  generation
anything else       500  incomplete_generation; the message stays in the log
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from server.api.errors import INTERNAL, ClientGone, Told, invalid, told
from server.api.openapi import MODEL, ErrorResponse, Responses, Sent

ErrorType = Literal["validation", "overloaded", "generation", "incomplete_generation"]

Handler = Callable[[Request], Awaitable[Response]]


class TgiError(Sent):
    """The one shape of TGI's errors, in streams too."""

    error: str
    error_type: ErrorType


TGI_ERRORS: Responses = {
    "4XX": {
        MODEL: ErrorResponse | TgiError,
        "description": "The request cannot be served, or has failed.",
    },
    "5XX": {
        MODEL: ErrorResponse | TgiError,
        "description": "The server failed, or is not ready.",
    },
}
"""A wrong method never reaches the route, and is told as elsewhere."""


def _kind(answer: Told) -> tuple[int, ErrorType]:
    """Status and type. Told by our own status, which has more to say."""
    match answer.kind.status:
        case 400:
            return 422, "validation"
        case 429 | 503 as status:
            return status, "overloaded"
        case status if status < 500:
            return status, "validation"
        case _ if answer.kind is INTERNAL:
            return 500, "incomplete_generation"
        case _:
            return 424, "generation"


def _body(answer: Told) -> bytes:
    _, error_type = _kind(answer)
    message = answer.message
    if error_type == "validation":
        # Clients look for this.
        message = f"Input validation error: {message}"
    # ASCII only: a message may repeat a lone surrogate of the client's.
    return json.dumps({"error": message, "error_type": error_type}).encode()


def error_event(answer: Told) -> bytes:
    """An error in a stream."""
    return b"data:" + _body(answer) + b"\n\n"


def refused(error: Exception) -> Response:
    """The response that tells of an error."""
    answer = told(invalid(error) if isinstance(error, RequestValidationError) else error)
    status, _ = _kind(answer)
    return Response(_body(answer), status, dict(answer.headers), JSONResponse.media_type)


class TgiRoute(APIRoute):
    """A route whose errors are told in TGI's way."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def handle_and_tell(request: Request) -> Response:
            try:
                return await handle(request)
            except ClientGone:
                raise
            # This is where the errors of these routes end, as all others do in the envelope.
            except Exception as error:
                if await self.speaks_tgi(request):
                    return refused(error)
                raise

        return handle_and_tell

    async def speaks_tgi(self, request: Request) -> bool:
        """Whether the client of this request does."""
        del request
        return True
