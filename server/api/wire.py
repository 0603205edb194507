"""What bodies and answers are made from.

Each of them is built when it is first used: to build all of them was a tenth of a start.
"""

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel

T = TypeVar("T")


class Wire(BaseModel):
    """What comes from clients, or goes to them."""

    model_config = ConfigDict(defer_build=True)


class Given(Wire):
    """A part of a body. The fields that it does not name are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Root(RootModel[T], Generic[T]):
    """What is not an object."""

    model_config = ConfigDict(defer_build=True)
