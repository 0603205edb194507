"""`documents`: texts that an answer is to be found in, as transformers and vLLM take them."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field, StrictStr
from pydantic_core import PydanticCustomError

from server.api.body import Body


def _scalar(value: object) -> object:
    if isinstance(value, str | bool | int | float):
        return value
    raise PydanticCustomError("no_scalar", "a text, a number or a boolean is required")


Scalar = Annotated[
    object, BeforeValidator(_scalar, json_schema_input_type=str | bool | int | float)
]


class Document(Body):
    """One of them. All fields but the text tell what is known of it: a title, a URL, a date."""

    __pydantic_extra__: dict[str, Scalar]  # pyright: ignore[reportIncompatibleVariableOverride]

    text: StrictStr = Field(
        min_length=1,
        validation_alias=AliasChoices("text", "contents", "doc"),
        description="required; it may also be called contents or doc",
    )


def shaped(documents: Sequence[Document]) -> tuple[Mapping[str, object], ...]:
    """As templates expect them: what is known, then `text`."""
    return tuple({**document.extras, "text": document.text} for document in documents)
