"""What a template can write down, found out by rendering small conversations."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from server.chat.template import Template, render
from server.errors import InvalidRequest

Message = Mapping[str, object]

USER: Message = {"role": "user", "content": "q-user"}
TOOL: Message = {
    "type": "function",
    "function": {
        "name": "q-tool",
        "description": "q-description",
        "parameters": {
            "type": "object",
            "properties": {"q-key": {"type": "string", "description": "q-text"}},
            "required": ["q-key"],
        },
    },
}
DOCUMENT: Message = {"title": "q-title", "text": "q-document"}
RESULT: Message = {
    "role": "tool",
    "content": "q-result",
    "tool_call_id": "callabc01",
    "name": "q-tool",
}


class Capabilities(NamedTuple):
    """What a template shows of what it is given."""

    system: bool
    tools: bool
    calls: bool
    several_calls: bool
    results: bool
    arguments: Literal["object", "text"]
    rows: bool
    """Users may speak twice in a row."""
    documents: bool
    wants_null: bool
    """Beside calls the content has to be null; otherwise an empty text does."""


def call(arguments: object, name: str = "q-tool") -> Message:
    return {
        "id": "callabc01",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def calling(*calls: Message, content: str | None = "") -> Message:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def probe(template: Template, bos: str, eos: str) -> Capabilities:
    """Try what the template does with each kind of message."""

    def shown(
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        documents: Sequence[Message] | None = None,
    ) -> str:
        own = {
            "add_generation_prompt": True,
            "bos_token": bos,
            "eos_token": eos,
        }
        try:
            return render(template, messages, {}, own=own, tools=tools, documents=documents).text
        except InvalidRequest:
            return ""

    tool = [TOOL]
    asked = [USER]
    empty = shown([*asked, calling(call({"q-key": "q-value"}))], tool)
    null = shown([*asked, calling(call({"q-key": "q-value"}), content=None)], tool)
    wants_null = "q-value" in null and "q-value" not in empty
    content = None if wants_null else ""
    with_object = null if wants_null else empty
    with_text = shown([*asked, calling(call('{"q-key": "q-value"}'), content=content)], tool)
    # A template that writes an object in Python's way wants the text, and one that quotes the
    # text wants the object.
    fits = "q-value" in with_object and "'q-key'" not in with_object
    text_fits = '{"q-key": "q-value"}' in with_text
    arguments = call({"q-key": "q-value"} if fits or not text_fits else '{"q-key": "q-value"}')
    known = fits or text_fits
    second = _renamed(arguments, "q-second")
    two = shown([*asked, calling(arguments, second, content=content)], tool)
    result = shown([*asked, calling(arguments, content=content), RESULT], tool)
    system: list[Message] = [{"role": "system", "content": "q-system"}, USER]
    row = shown([USER, {"role": "user", "content": "q-again"}])
    return Capabilities(
        # Some templates are for use with tools only.
        system="q-system" in (shown(system) or shown(system, tool)),
        tools="q-tool" in shown(asked, tool),
        calls=known,
        several_calls=known and "q-tool" in two and "q-second" in two,
        results=known and "q-result" in result,
        arguments="object" if fits or not text_fits else "text",
        rows="q-user" in row and "q-again" in row,
        documents="q-document" in shown(asked, [], [DOCUMENT]),
        wants_null=wants_null,
    )


def _renamed(message: Message, name: str) -> Message:
    function = cast("Message", message["function"])
    return {**message, "id": "callabc02", "function": {**function, "name": name}}
