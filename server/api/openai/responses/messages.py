"""Items to messages, in the form that templates expect."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import assert_never, cast

from server.api.openai.messages import parsed_arguments
from server.api.openai.responses.items import (
    CustomCall,
    FunctionCall,
    FunctionCallOutput,
    Kept,
    Message,
    Reasoning,
    plain,
)

ChatMessage = dict[str, object]


def to_messages(instructions: str | None, items: Iterable[Kept]) -> list[ChatMessage]:
    """A conversation. What an assistant thought, said and called in a row is one message."""
    writer = _Writer()
    if instructions is not None:
        writer.messages.append({"role": "developer", "content": instructions})
    for item in items:
        writer.write(item)
    writer.flush()
    return _with_one_system(writer.messages)


@dataclass
class _Writer:
    """Collects messages; thoughts wait for what comes of them."""

    messages: list[ChatMessage] = field(default_factory=list[ChatMessage])
    _thoughts: list[str] = field(default_factory=list[str])
    _names: dict[str, str] = field(default_factory=dict[str, str])
    """Of the functions that were called, by the id of the call."""

    def write(self, item: Kept) -> None:
        match item:
            case Message(role="assistant"):
                self._assistant(plain(item.content))
            case Message():
                self.flush()
                self.messages.append({"role": item.role, "content": plain(item.content)})
            case Reasoning():
                self._thoughts.append(item.text)
            case FunctionCall():
                self._call(item.call_id, item.name, parsed_arguments(item.arguments))
            case CustomCall():
                self._call(item.call_id, item.name, {"input": item.input})
            case FunctionCallOutput():
                self.flush()
                message = {"role": "tool", "tool_call_id": item.call_id}
                if item.call_id in self._names:
                    message["name"] = self._names[item.call_id]
                self.messages.append({**message, "content": plain(item.output)})
            case _:
                assert_never(item)

    def flush(self) -> None:
        """Thoughts of which nothing came are a message too."""
        if any(self._thoughts):
            self._assistant("")

    def _assistant(self, content: str | None) -> ChatMessage:
        message: ChatMessage = {"role": "assistant", "content": content}
        thoughts = "\n".join(text for text in self._thoughts if text)
        self._thoughts.clear()
        if thoughts:
            message["reasoning_content"] = thoughts
        self.messages.append(message)
        return message

    def _call(self, call_id: str, name: str, arguments: object) -> None:
        self._names[call_id] = name
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or any(self._thoughts):
            # Null beside calls is what templates for tools test for.
            last = self._assistant(None)
        calls = cast("list[object]", last.setdefault("tool_calls", []))
        function = {"name": name, "arguments": arguments}
        calls.append({"id": call_id, "type": "function", "function": function})


def _with_one_system(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Many templates know one system message: those at the beginning become one."""
    n = 0
    while n < len(messages) and messages[n]["role"] in ("system", "developer"):
        n += 1
    if n < 2:
        return messages
    content = "\n\n".join(str(message["content"]) for message in messages[:n])
    return [{**messages[0], "content": content}, *messages[n:]]


def droppable(messages: Sequence[Mapping[str, object]]) -> list[range]:
    """What may be left out of a conversation that is too long, oldest first.

    These are whole exchanges: from one user's message to the next, and after the last one from
    one assistant's message to the next. Instructions and the last message of a user stay.
    """
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        return []
    first = next(i for i, m in enumerate(messages) if m["role"] not in ("system", "developer"))
    last = users[-1]
    before = [first, *(i for i in users if i > first)]
    after = [i for i in range(last + 1, len(messages)) if messages[i]["role"] == "assistant"]
    starts = [range(a, b) for a, b in pairwise(before)]
    # The last exchange is what the model is to go on from.
    return starts + [range(a, b) for a, b in pairwise(after)]


def without(
    messages: Sequence[Mapping[str, object]], gaps: Iterable[range]
) -> list[Mapping[str, object]]:
    """The messages outside of these ranges; instructions inside stay."""
    left_out = {i for gap in gaps for i in gap}
    return [
        message
        for i, message in enumerate(messages)
        if i not in left_out or message["role"] in ("system", "developer")
    ]
