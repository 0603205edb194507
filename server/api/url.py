"""What a request's URL says.

Read by dependencies that /openapi.json looks up: for parameters that it reads itself, the framework
imports at each start what was pydantic before version 2.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from fastapi import Request
from pydantic import BaseModel, ValidationError

from server.api.errors import invalid

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class PathPart:
    """A dependency that reads a part of the path, as a text."""

    name: str

    async def __call__(self, request: Request) -> str:
        return cast("str", request.path_params[self.name])


@dataclass(frozen=True, slots=True)
class Query(Generic[M]):
    """A dependency that reads the query as `model`."""

    model: type[M]

    async def __call__(self, request: Request) -> M:
        """The query. Raises InvalidRequest with the parameter's name."""
        try:
            return self.model.model_validate(dict(request.query_params))
        except ValidationError as error:
            raise invalid(error) from error
