"""Turn: one exchange as values. What is asked of a model, and the parts of its answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from server.ipc import Grammar, Text


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is a JSON schema; None: there are none."""

    name: str
    description: str | None = None
    parameters: Mapping[str, object] | None = None
    strict: bool = False
    """The arguments must match the schema even where the model is free to call or not."""
    param: str = "tools"
    """The request field that errors about this tool are reported for: `tools.0.function`."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether to call, and what."""

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] = ()
    """Only these may be called; empty: any."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Messages in the form that templates expect, and how they are to be answered."""

    messages: Sequence[Mapping[str, object]]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    answer: Grammar | None = None
    """What the content must match, where the model does not call a tool."""
    variables: Mapping[str, object] = field(default_factory=dict[str, object])
    """The client's `chat_template_kwargs`, and `reasoning_effort`."""
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    documents: tuple[Mapping[str, object], ...] = ()
    """What the answer is to be found in: `text`, and anything that is known of it."""
    template: str | None = None
    """What the client wants its messages written with: a name of templates/, or jinja."""


class Content(NamedTuple):
    """Text for the user."""

    text: str


class Reasoning(NamedTuple):
    """Text that the model wrote for itself."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """The model calls a tool: the `index`-th call of this answer, from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments, which are JSON when all have come."""

    index: int
    text: str


Part = Content | Reasoning | CallBegin | CallArguments


class Parser(Protocol):
    """Takes an answer apart while it is generated."""

    def push(self, text: str) -> list[Part]:
        """The next text of the answer, cut anywhere; what is certain by now."""
        ...

    def finish(self) -> list[Part]:
        """No more text comes: what was held back."""
        ...


class Chosen(NamedTuple):
    """Which template a prompt was written with."""

    name: str | None
    """Of templates/; None: none of these writes the same."""
    origin: str
    """Who chose it: request, configuration, GGUF or family."""
    reason: str


UNNAMED = Chosen(None, "GGUF", "")


class Plan(NamedTuple):
    """How a turn is put to the engine, and how its answer is read."""

    prompt: Text
    parser: Callable[[], Parser]
    """A new parser for each choice."""
    grammar: Grammar | None = None
    visible: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    """Stop strings beside the client's own."""
    template: Chosen = UNNAMED
