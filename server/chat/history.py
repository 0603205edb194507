"""A conversation made to fit a template: what it does not know is said in ways that it does."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from server.chat.capabilities import Capabilities
from server.chat.dialect import Call, Dialect
from server.chat.documents import in_blocks
from server.chat.template import Conversation
from server.errors import InvalidRequest

Message = Mapping[str, object]

_WORDS = (
    "You can call functions. These are the functions, in JSON:\n\n{tools}\n\n"
    "To call functions, answer with nothing but this, with the names and arguments that you need:"
    "\n\n{sample}"
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """Rewrites conversations for one template."""

    source: str
    dialect: Dialect
    can: Capabilities
    blocks: bool = False
    """Documents are written in blocks around what the user says last, for Bagel."""

    def __call__(self, conversation: Conversation) -> Conversation:
        messages, tools, documents = conversation
        spoken = self.dialect.own_prompt or not self.can.calls
        messages = list(_named(self._role(message) for message in messages))
        if documents and self.blocks:
            messages = _around_the_last(messages, partial(in_blocks, documents), "documents")
            documents = None
        if tools and self.dialect.ask:
            messages = _around_the_last(messages, partial(self.dialect.ask, tools), "tools")
            tools = None
        if spoken:
            messages = list(self._calls_as_text(messages))
        elif not self.can.several_calls:
            messages = list(_one_by_one(messages))
        unknown = (spoken or not self.can.results) and any(m["role"] == "tool" for m in messages)
        if unknown:
            messages = list(_results_as_text(messages))
        if unknown or not self.can.rows:
            messages = _joined(messages)
        if tools and (self.dialect.own_prompt or not self.can.tools):
            messages = _with_system(messages, self._introduction(tools))
            tools = None
        if not self.can.system:
            messages = _system_as_user(messages)
        if not spoken:
            messages = [self._fitting(message) for message in messages]
        return Conversation(messages, tools, documents)

    def _role(self, message: Message) -> Message:
        """The message in a role that the template knows."""
        if message["role"] == "developer" and "developer" not in self.source:
            return {**message, "role": "system"}
        return message

    def _calls_as_text(self, messages: Sequence[Message]) -> Iterator[Message]:
        for message in messages:
            if not message.get("tool_calls"):
                yield message
                continue
            written = self.dialect.write([_call(call) for call in _calls(message)])
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            content = message.get("content")
            yield {**rest, "content": f"{content}\n{written}" if content else written}

    def _introduction(self, tools: Sequence[Message]) -> str:
        sample = self.dialect.write([Call("function_name", '{"argument": "value"}')])
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        return _WORDS.format(tools=listed, sample=sample)

    def _fitting(self, message: Message) -> Message:
        """The message with calls and ids of the kind that the template takes."""
        changed = dict(message)
        if "tool_call_id" in message and self._short_ids:
            changed["tool_call_id"] = _short(message["tool_call_id"])
        if not message.get("tool_calls"):
            return changed
        if not message.get("content"):
            changed["content"] = None if self.can.wants_null else ""
        if "message.thinking" in self.source and not message.get("content"):
            changed.setdefault("thinking", message.get("reasoning_content") or "")
        changed["tool_calls"] = [self._fitting_call(call) for call in _calls(message)]
        return changed

    def _fitting_call(self, call: Message) -> Message:
        function = _function(call)
        arguments = function.get("arguments")
        if self.can.arguments == "text" and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        fitting = {**call, "function": {**function, "arguments": arguments}}
        if self._short_ids:
            fitting["id"] = _short(call.get("id"))
        return fitting

    @property
    def _short_ids(self) -> bool:
        """Mistral's templates refuse ids that are not of nine characters."""
        return re.search(r"length\s*!=\s*9", self.source) is not None


def _calls(message: Message) -> Sequence[Message]:
    return cast("Sequence[Message]", message.get("tool_calls") or ())


def _function(call: Message) -> Message:
    return cast("Message", call.get("function") or {})


def _call(call: Message) -> Call:
    function = _function(call)
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return Call(str(function.get("name")), arguments)


def _short(id: object) -> object:
    """An id of nine letters and digits, the same for the same id."""
    if isinstance(id, str) and re.fullmatch(r"[A-Za-z0-9]{9}", id):
        return id
    return hashlib.sha256(str(id).encode()).hexdigest()[:9]


def _named(messages: Iterator[Message]) -> Iterator[Message]:
    """Results with the name of the function that they come from."""
    names: dict[object, object] = {}
    for message in messages:
        for call in _calls(message):
            names[call.get("id")] = _function(call).get("name")
        if message["role"] == "tool" and not message.get("name"):
            name = names.get(message.get("tool_call_id"))
            yield {**message, "name": name} if name else message
        else:
            yield message


def _one_by_one(messages: Sequence[Message]) -> Iterator[Message]:
    """Each call in a message of its own, with its result after it."""
    results: dict[object, Message] = {}
    for i, message in enumerate(messages):
        calls = _calls(message)
        if message["role"] == "tool" and message.get("tool_call_id") in results:
            continue
        if len(calls) < 2:
            yield message
            continue
        results = {}
        for result in messages[i + 1 :]:
            if result["role"] != "tool":
                break
            results[result.get("tool_call_id")] = result
        for n, call in enumerate(calls):
            yield {**message, "content": message.get("content") if n == 0 else None} | {
                "tool_calls": [call]
            }
            if found := results.get(call.get("id")):
                yield found


def _results_as_text(messages: Sequence[Message]) -> Iterator[Message]:
    for message in messages:
        if message["role"] == "tool":
            name = message.get("name")
            source = f"Result of {name}:" if name else "Result:"
            yield {"role": "user", "content": f"{source}\n{message.get('content')}"}
        else:
            yield message


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Messages of users in a row as one: many templates insist that roles alternate."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        if last and last["role"] == message["role"] == "user":
            joined[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined


def _around_the_last(
    messages: Sequence[Message], write: Callable[[str], str], param: str
) -> list[Message]:
    """The messages with what the user says last as `write` has it. Raises InvalidRequest."""
    changed = list(messages)
    for i in reversed(range(len(changed))):
        if changed[i]["role"] == "user":
            changed[i] = {**changed[i], "content": write(str(changed[i].get("content") or ""))}
            return changed
    raise InvalidRequest(f"{param}: no message of a user's to write them into", param=param)


def _with_system(messages: Sequence[Message], text: str) -> list[Message]:
    if messages and messages[0]["role"] in ("system", "developer"):
        first = messages[0]
        return [{**first, "content": f"{first.get('content')}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _system_as_user(messages: Sequence[Message]) -> list[Message]:
    """What systems say, at the start of the user's next message."""
    result: list[Message] = []
    held: list[str] = []
    for message in messages:
        if message["role"] == "system":
            held.append(str(message.get("content")))
        elif held and message["role"] == "user":
            content = "\n\n".join((*held, str(message.get("content"))))
            held = []
            result.append({**message, "content": content})
        elif held:
            result += [{"role": "user", "content": "\n\n".join(held)}, message]
            held = []
        else:
            result.append(message)
    if held:
        result.append({"role": "user", "content": "\n\n".join(held)})
    return result
