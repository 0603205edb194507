"""What all contents of messages have in common: strings, or parts with a type."""

import json
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Discriminator, Tag
from pydantic_core import PydanticCustomError


def one_of(types: tuple[str, ...]) -> BeforeValidator:
    """Refuses a part's type that is none of these, in words of its own."""

    def check(value: object) -> object:
        if value not in types:
            raise PydanticCustomError(
                "unsupported",
                "only text and refusal parts are served, got {kind}",
                {"kind": json.dumps(value)[:60]},
            )
        return value

    return BeforeValidator(check)


def _kind(value: object) -> Literal["<text>", "<parts>"]:
    return "<parts>" if isinstance(value, list | tuple) else "<text>"


P = TypeVar("P")

Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[tuple[P, ...], Tag("<parts>")],
    Discriminator(_kind),
]
"""A string, or parts."""
