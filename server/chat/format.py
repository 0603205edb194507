"""ChatFormat: how one model wants its messages written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from server.chat.capabilities import probe
from server.chat.dialect import Answering, Dialect, read_answer
from server.chat.dialects import dialect_named, dialect_of
from server.chat.history import Adapter
from server.chat.lark import Spelling
from server.chat.parser import StreamParser
from server.chat.reasoning import Thoughts, is_inside, thoughts_of
from server.chat.template import Template, compile_template, render
from server.chat.turn import Plan, Tool, Turn
from server.chat.wanted import Wanted
from server.config import ModelConfig
from server.errors import InvalidRequest
from server.ipc import ModelInfo, Text

PACKAGE = Path(__file__).parents[1]

TEMPLATE_FOLDERS = (PACKAGE / "templates", PACKAGE.parent / "templates")
"""Where named templates lie: in a wheel, in a checkout."""

RESERVED = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"}
)
"""Template variables that we set, so `chat_template_kwargs` may not."""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How one model's template, its control tokens and its dialect go together."""

    template: Template
    bos: str
    eos: str
    special: tuple[str, ...]
    dialect: Dialect
    thoughts: Thoughts | None
    spelling: Spelling
    adapt: Adapter

    def plan(self, turn: Turn) -> Plan:
        """How to put `turn` to the engine, and how to read the answer. Raises InvalidRequest."""
        allowed = _allowed(turn)
        prompt = self.prompt(
            turn.messages,
            turn.variables,
            turn.add_generation_prompt,
            turn.continue_final_message,
            turn.tools if allowed else (),
        )
        begun = str(turn.messages[-1].get("content")) if turn.continue_final_message else ""
        inside = is_inside(self.thoughts, prompt.text, begun)
        wanted = Wanted(turn, allowed, self.dialect, self.spelling, self.thoughts, inside)
        if prefix := wanted.prefix:
            prompt = replace(prompt, text=prompt.text + prefix)
            inside = False
        answering = Answering(
            frozenset(tool.name for tool in allowed),
            self.thoughts,
            inside,
            {tool.name: tool for tool in allowed},
        )
        return Plan(
            prompt,
            lambda: StreamParser(lambda feed: read_answer(feed, self.dialect, answering)),
            wanted.grammar(),
            self._visible(bool(allowed)),
        )

    def _visible(self, calls: bool) -> tuple[str, ...]:
        """The control tokens that the reader needs to see."""
        needed = {*(self.thoughts or ())}
        if calls or self.dialect.read_answer:
            needed |= set(self.dialect.visible)
        return tuple(text for text in self.special if text in needed)

    def prompt(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Tool] = (),
    ) -> Text:
        """Messages to prompt; `variables` are the client's `chat_template_kwargs`.

        Raises InvalidRequest.
        """
        variables = variables or {}
        for name in variables.keys() & RESERVED:
            raise InvalidRequest(
                f"chat_template_kwargs.{name}: is set by the server",
                param=f"chat_template_kwargs.{name}",
            )
        if continue_final_message:
            _check_continued(messages, add_generation_prompt)
        return render(
            self.template,
            messages,
            variables,
            self.special,
            continue_final_message,
            # transformers passes None for what is not given, and templates test for it.
            own={
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                "bos_token": self.bos,
                "eos_token": self.eos,
            },
            tools=[_shaped(tool) for tool in tools] or None,
            adapt=self.adapt,
        )


def _shaped(tool: Tool) -> Mapping[str, object]:
    """The tool as templates expect it."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description or "",
            "parameters": tool.parameters or {"type": "object", "properties": {}},
        },
    }


def _allowed(turn: Turn) -> tuple[Tool, ...]:
    """The tools that may be called in this turn."""
    choice = turn.tool_choice
    if choice.mode == "none":
        return ()
    unknown = set(choice.names) - {tool.name for tool in turn.tools}
    if unknown or (choice.mode == "required" and not turn.tools):
        raise InvalidRequest(
            f"tool_choice: there is no tool {json.dumps(min(unknown))}"
            if unknown
            else "tool_choice: a call is required, and there are no tools",
            param="tool_choice",
        )
    return tuple(tool for tool in turn.tools if not choice.names or tool.name in choice.names)


def chat_format(config: ModelConfig, info: ModelInfo) -> ChatFormat:
    """The format of a model: by the configured template, else by the GGUF's own.

    Raises InvalidRequest if there is neither, or if it does not compile.
    """
    return _format(config.template, config.dialect, info)


@lru_cache(maxsize=64)
def _format(template: str | None, dialect: str | None, info: ModelInfo) -> ChatFormat:
    source = info.template if template is None else _read(template)
    if not source:
        raise InvalidRequest(
            "the model's GGUF carries no chat template: set `template` of this model in the "
            "configuration to a name of templates/ or a .jinja file, or use /v1/completions",
            param="messages",
        )
    compiled = compile_template(source)
    spoken = dialect_named(dialect) if dialect else dialect_of(source)
    return ChatFormat(
        compiled,
        info.bos,
        info.eos,
        info.special,
        spoken,
        thoughts_of(source),
        Spelling(token_ids(info)),
        Adapter(source, spoken, probe(compiled, info.bos, info.eos)),
    )


def token_ids(info: ModelInfo) -> Mapping[str, int | None]:
    """The ids of the control tokens, by their texts."""
    ids = info.special_ids or (None,) * len(info.special)
    return dict(zip(info.special, ids, strict=True))


def _read(template: str) -> str:
    """The source of a configured template: a path to a .jinja file or a name of templates/."""
    if template.endswith(".jinja"):
        places = (Path(template).expanduser(),)
    else:
        places = tuple(folder / f"{template}.jinja" for folder in TEMPLATE_FOLDERS)
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    looked = " and ".join(str(place) for place in places)
    raise InvalidRequest(
        f"the configured chat template {template!r} does not exist: looked at {looked}",
        param="messages",
    )


def _check_continued(messages: Sequence[Mapping[str, object]], add_generation_prompt: bool) -> None:
    last = messages[-1]
    if add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other",
            param="continue_final_message",
        )
    if last["role"] != "assistant" or not isinstance(last.get("content"), str):
        raise InvalidRequest(
            "continue_final_message: the last message must be an assistant's, with text",
            param="continue_final_message",
        )
