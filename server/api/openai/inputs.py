"""Texts or token ids, one or several: the forms in which OpenAI's endpoints take them."""

from typing import cast

Input = str | tuple[int, ...]

WIRE_FORM = str | list[str] | list[int] | list[list[int]]
"""As the API's description has it."""


def read_inputs(value: object) -> tuple[Input, ...]:
    """A text, a list of texts, token ids, or a list of lists of token ids. Raises ValueError."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise ValueError("must be a text, texts, token ids or lists of token ids, not empty")
    items = cast("list[object]", value)
    match items[0]:
        case str():
            return tuple(_a_text(i, item) for i, item in enumerate(items))
        case list():
            return tuple(_token_ids(item, f"{i}.") for i, item in enumerate(items))
        case _:
            return (_token_ids(items, ""),)


def _a_text(index: int, item: object) -> str:
    if not isinstance(item, str):
        raise ValueError(f"item {index} is not a text, but item 0 is")
    return item


def _token_ids(value: object, path: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"item {path.rstrip('.')} must be token ids, at least one")
    ids = cast("list[object]", value)
    for i, id in enumerate(ids):
        # A JSON true is an int in Python.
        if type(id) is not int:
            raise ValueError(f"item {path}{i} is not a token id")
    return tuple(cast("list[int]", ids))
