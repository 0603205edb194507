"""Request bodies: limited in size, read as JSON whatever their content type says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from fastapi import Request
from pydantic import BaseModel, ValidationError, model_validator
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import ClientGone, invalid
from server.api.wire import Given

M = TypeVar("M", bound=BaseModel)


class BodyLimit:
    """ASGI middleware: no route reads more than `limit` bytes, said beforehand or not."""

    def __init__(self, app: ASGIApp, limit: int):
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = _content_length(scope)
        n_read = 0

        async def receive_limited() -> Message:
            nonlocal n_read
            # Raised here, inside the app, so that it is answered like any other error.
            if announced > self._limit:
                raise self._too_large(f"{announced:,}")
            message = await receive()
            n_read += len(message.get("body", b""))
            if n_read > self._limit:
                raise self._too_large(f"{n_read:,} or more")
            return message

        await self._app(scope, receive_limited, send)

    def _too_large(self, size: str) -> HTTPException:
        return HTTPException(413, f"body of {size} bytes, at most {self._limit:,} are accepted")


def _content_length(scope: Scope) -> int:
    for name, value in cast("list[tuple[bytes, bytes]]", scope["headers"]):
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


class Body(Given):
    """A request's fields. Null is as good as absent, and fields that it does not name are kept."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        fields = cast("dict[str, object]", value)
        return {name: item for name, item in fields.items() if item is not None}

    @property
    def extras(self) -> Mapping[str, object]:
        """The fields that it does not name."""
        return self.model_extra or {}


@dataclass(frozen=True, slots=True)
class JsonBody(Generic[M]):
    """A dependency that reads the body as `model`, which /openapi.json looks up here."""

    model: type[M]

    async def __call__(self, request: Request) -> M:
        """The body. Raises InvalidRequest with the field's path."""
        try:
            return self.model.model_validate_json(await request.body())
        except ValidationError as error:
            raise invalid(error) from error
        except ClientDisconnect as error:
            raise ClientGone("gone before the end of its request") from error


def json_body(model: type[M]) -> JsonBody[M]:
    """What routes give to `Depends`."""
    return JsonBody(model)
