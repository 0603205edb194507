"""Items: what a conversation is made of on the wire, given by clients and kept in the store.

Intentional:

* Content may be a string or parts, and a message may lack its type; both are made explicit here,
  and every item gets an id, so that what is listed later has the one shape.
* A part is renamed to what its role's messages have: clients send `input_text` for assistants too.
"""

import base64
import binascii
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, cast

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    model_validator,
)
from pydantic_core import PydanticCustomError

from server.api.body import Body
from server.api.openai.parts import Content, one_of

Status = Literal["in_progress", "completed", "incomplete"]

TEXT_PARTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")

SEALED = "corral."
"""Begins an `encrypted_content` of ours."""


def new_id(kind: Literal["resp", "msg", "rs", "fc", "fco"]) -> str:
    """A fresh id of this kind of thing."""
    return f"{kind}_{uuid.uuid4().hex}"


def seal(text: str) -> str:
    """Reasoning as an `encrypted_content`: opaque to clients, but no secret."""
    return SEALED + base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode()


def unseal(sealed: str) -> str:
    """The text in an `encrypted_content`; nothing if another server wrote it."""
    if not sealed.startswith(SEALED):
        return ""
    try:
        return base64.urlsafe_b64decode(sealed.removeprefix(SEALED)).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""


class Part(Body):
    """A text of an item's content."""

    type: Annotated[str, one_of((*TEXT_PARTS, "refusal"))]
    text: str = ""
    refusal: str = ""

    @model_validator(mode="before")
    @classmethod
    def _has_its_text(cls, value: object) -> object:
        if isinstance(value, Mapping):
            part = cast("Mapping[str, object]", value)
            name = "refusal" if part.get("type") == "refusal" else "text"
            if part.get("type") in (*TEXT_PARTS, "refusal") and not isinstance(part.get(name), str):
                raise ValueError(f"a part of type {part['type']} has a string as its {name}")
        return cast("object", value)

    @property
    def content(self) -> str:
        return self.refusal if self.type == "refusal" else self.text

    def resource(self, type: str) -> dict[str, object]:
        """As it is listed; a text is of this type."""
        if self.type == "refusal":
            return {"type": "refusal", "refusal": self.refusal}
        resource: dict[str, object] = {"type": type, "text": self.text}
        if type == "output_text":
            resource |= {"annotations": [], "logprobs": []}
        return resource


def plain(content: str | Sequence[Part]) -> str:
    """The text of a content; parts are lines."""
    return content if isinstance(content, str) else "\n".join(part.content for part in content)


def _parts(content: str | Sequence[Part], type: str) -> list[dict[str, object]]:
    given = [Part(type=type, text=content)] if isinstance(content, str) else content
    return [part.resource(type) for part in given]


class _Item(Body):
    """What all items have. Fields that are not named label, or belong to what is not served."""

    id: str = Field(default="", max_length=256)
    status: Status = "completed"


class Message(_Item):
    """Somebody said something."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content[Part]

    def resource(self) -> dict[str, object]:
        part = "output_text" if self.role == "assistant" else "input_text"
        return {
            "id": self.id or new_id("msg"),
            "type": "message",
            "status": self.status,
            "role": self.role,
            "content": _parts(self.content, part),
        }


class FunctionCall(_Item):
    """The model called a function; `arguments` is what it wrote, JSON as a rule."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str

    def resource(self) -> dict[str, object]:
        return {
            "id": self.id or new_id("fc"),
            "type": "function_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
        }


class FunctionCallOutput(_Item):
    """What the function returned."""

    type: Literal["function_call_output"]
    call_id: str = Field(min_length=1)
    output: Content[Part]

    def resource(self) -> dict[str, object]:
        output = self.output
        return {
            "id": self.id or new_id("fco"),
            "type": "function_call_output",
            "status": self.status,
            "call_id": self.call_id,
            "output": output if isinstance(output, str) else _parts(output, "input_text"),
        }


class CustomCall(_Item):
    """The model called a tool with free text. Nobody calls such here, but histories may."""

    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str

    def resource(self) -> dict[str, object]:
        return {
            "id": self.id or new_id("fc"),
            "type": "custom_tool_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "input": self.input,
        }


class CustomCallOutput(FunctionCallOutput):
    """What such a tool returned."""

    type: Literal["custom_tool_call_output"]  # pyright: ignore[reportIncompatibleVariableOverride]

    def resource(self) -> dict[str, object]:
        return {**super().resource(), "type": "custom_tool_call_output"}


class Reasoning(_Item):
    """What the model wrote for itself."""

    type: Literal["reasoning"]
    summary: tuple[Part, ...] = ()
    content: tuple[Part, ...] = ()
    encrypted_content: str | None = None

    @property
    def text(self) -> str:
        return plain(self.content) or unseal(self.encrypted_content or "") or plain(self.summary)

    def resource(self) -> dict[str, object]:
        sealed = self.encrypted_content
        return {
            "id": self.id or new_id("rs"),
            "type": "reasoning",
            "status": self.status,
            "summary": _parts(self.summary, "summary_text"),
            "content": _parts(self.content, "reasoning_text"),
            **({} if sealed is None else {"encrypted_content": sealed}),
        }


class Reference(_Item):
    """An item that is kept in the store."""

    type: Literal["item_reference"] = "item_reference"
    id: str = Field(min_length=1, max_length=256)


Kept = Message | FunctionCall | FunctionCallOutput | CustomCall | CustomCallOutput | Reasoning
"""What may follow each other in a conversation."""

KINDS = (
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "item_reference",
)


def _kind(value: object) -> str:
    """The tag of an item: its type, or what it must be where it has none."""
    if not isinstance(value, Mapping):
        return f"<{getattr(value, 'type', 'message')}>"
    item = cast("Mapping[str, object]", value)
    if item.get("type") is None:
        return "<item_reference>" if "id" in item and "role" not in item else "<message>"
    return f"<{item['type']}>"


def _check_kind(value: object) -> object:
    kind = None
    if isinstance(value, Mapping):
        kind = cast("Mapping[str, object]", value).get("type")
    if kind is not None and kind not in KINDS:
        raise PydanticCustomError(
            "unsupported", "items of type {kind} are not served", {"kind": json.dumps(kind)[:60]}
        )
    return cast("object", value)


Item = Annotated[
    Annotated[Message, Tag("<message>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[CustomCall, Tag("<custom_tool_call>")]
    | Annotated[CustomCallOutput, Tag("<custom_tool_call_output>")]
    | Annotated[Reasoning, Tag("<reasoning>")]
    | Annotated[Reference, Tag("<item_reference>")],
    Discriminator(_kind),
    BeforeValidator(_check_kind),
]

_ITEMS = TypeAdapter[tuple[Item, ...]](tuple[Item, ...])


def kept_items(stored: Sequence[Mapping[str, object]]) -> list[Kept]:
    """Items that were stored. None of them is a reference."""
    items = _ITEMS.validate_python(stored)
    return [item for item in items if not isinstance(item, Reference)]
