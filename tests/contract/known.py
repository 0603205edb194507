"""The SDK's types as judges: what of an answer do they not know?"""

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from openai import BaseModel

M = TypeVar("M", bound=BaseModel)

UNKNOWN = {
    "$.choices[*].message.reasoning",
    "$.choices[*].message.reasoning_content",
    "$.choices[*].delta.reasoning",
    "$.choices[*].delta.reasoning_content",
    "$.store",
}
"""What the types may lack: a chat's reasoning, under the two names that clients of other servers
read, and `store`, which OpenAI's document shows in every response and no type of it has."""


def read(model: type[M], value: object) -> M:
    """`value` as the SDK's type. Raises if it is none, or has fields that this type has not."""
    answer = model.model_validate(value)
    unknown = {*_unknown(answer, "$")} - UNKNOWN
    assert not unknown, f"{model.__name__} has no {', '.join(sorted(unknown))}: {value}"
    return answer


def _unknown(value: object, path: str) -> Iterator[str]:
    match value:
        case BaseModel():
            yield from (f"{path}.{name}" for name in value.model_extra or {})
            for name in type(value).model_fields:
                yield from _unknown(getattr(value, name), f"{path}.{name}")
        case list():
            for item in cast("list[Any]", value):
                yield from _unknown(item, f"{path}[*]")
        case _:
            pass
