"""Messages of a chat request, and how templates expect them."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Literal, cast

from pydantic import Field

from server.api.openai.parts import Content, one_of
from server.api.wire import Given
from server.errors import InvalidRequest


class ContentPart(Given):
    """A text of a message's content."""

    type: Annotated[Literal["text", "refusal"], one_of(("text", "refusal"))]
    text: str = ""
    refusal: str = ""


class FunctionCall(Given):
    """What an assistant called."""

    name: str
    arguments: object = Field(default=None, description="JSON, as a string")


class ToolCall(Given):
    """One call of an assistant's message."""

    id: str | None = None
    function: FunctionCall


class Message(Given):
    """One message. Fields that are not named here reach the template as they are."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content[ContentPart] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = Field(
        default=None, description="deprecated: use tool_calls"
    )


def for_template(messages: Sequence[Message]) -> list[Mapping[str, object]]:
    """As templates expect them: text content, calls with parsed arguments, nothing null.

    Content stays null beside tool calls, which templates for tools test for. The deprecated
    `function_call` and the role `function` become tool calls and their results. Raises
    InvalidRequest.
    """
    spoken: list[Mapping[str, object]] = []
    n_legacy = 0
    for position, message in enumerate(messages):
        fields = _plain(message)
        calls = message.tool_calls or ()
        if message.function_call is not None:
            n_legacy += 1
            calls = (ToolCall(id=f"call_{n_legacy}", function=message.function_call),)
        if calls:
            fields["tool_calls"] = [_parsed(call) for call in calls]
            fields["content"] = None if message.content is None else _text(message.content)
        match message.role:
            case "tool":
                fields["tool_call_id"] = _call_id(message, f"messages.{position}.tool_call_id")
            case "function":
                fields |= {"role": "tool", "tool_call_id": f"call_{n_legacy}"}
            case _:
                pass
        spoken.append(fields)
    return spoken


def _plain(message: Message) -> dict[str, object]:
    """A message's own fields but for its calls."""
    fields: dict[str, object] = {
        name: value for name, value in (message.model_extra or {}).items() if value is not None
    }
    fields |= {"role": message.role, "content": _text(message.content)}
    if message.name is not None:
        fields["name"] = message.name
    if "reasoning" in fields:
        fields.setdefault("reasoning_content", fields["reasoning"])
    return fields


def _call_id(message: Message, path: str) -> str:
    """Which call a tool's message answers."""
    if message.tool_call_id is None:
        raise InvalidRequest(
            f"{path}: a tool message needs the id of the call that it answers", param=path
        )
    return message.tool_call_id


def _text(content: str | tuple[ContentPart, ...] | None) -> str:
    if isinstance(content, tuple):
        return "\n".join(part.text or part.refusal for part in content)
    return content or ""


def _parsed(call: ToolCall) -> Mapping[str, object]:
    fields: dict[str, object] = {"type": "function", **call.model_dump(exclude_none=True)}
    arguments = parsed_arguments(call.function.arguments)
    cast("dict[str, object]", fields["function"])["arguments"] = arguments
    return fields


def parsed_arguments(arguments: object) -> object:
    """A call's arguments as templates want them: not as JSON, but as what it says."""
    if isinstance(arguments, str):
        # A model may have written bad JSON; its template still shows what it wrote.
        with suppress(ValueError):
            return json.loads(arguments or "{}")
    return arguments
