"""ChatFormat: how one model wants its messages written."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from jinja2.exceptions import SecurityError

from server.chat.budget import one_clock
from server.chat.capabilities import probe
from server.chat.choice import (
    Choice,
    Known,
    choose,
    end_marker,
    end_warning,
    is_jinja,
    recognised,
)
from server.chat.dialect import Answering, Dialect, read_answer
from server.chat.dialects import bagel, dialect_named, dialect_of, rewoo
from server.chat.families import is_bagels
from server.chat.history import Adapter
from server.chat.lark import Spelling
from server.chat.parser import StreamParser
from server.chat.reasoning import Thoughts, is_inside, thoughts_of
from server.chat.template import Template, compile_template, render
from server.chat.turn import Chosen, Plan, Tool, Turn
from server.chat.wanted import Wanted
from server.config import ModelConfig
from server.errors import InvalidRequest, UnsupportedParameter
from server.ipc import ModelInfo, Text

log = logging.getLogger(__name__)

RESERVED = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"}
)
"""Template variables that we set, so `chat_template_kwargs` may not."""


class ChatFormat(NamedTuple):
    """How one model's template, its control tokens and its dialect go together."""

    template: Template
    bos: str
    eos: str
    special: tuple[str, ...]
    dialect: Dialect
    thoughts: Thoughts | None
    spelling: Spelling
    adapt: Adapter
    choice: Choice
    stops: tuple[str, ...] = ()
    """Of the template; those that are tokens which end answers anyway are left out."""
    warning: str | None = None
    """What is wrong with the way answers end, if something is."""

    def plan(self, turn: Turn) -> Plan:
        """How to put `turn` to the engine, and how to read the answer. Raises InvalidRequest."""
        allowed = _allowed(turn)
        shown = turn.tools if allowed else ()
        if self.dialect.plans:
            shown, allowed = allowed, ()
            _check_planned(turn)
        prompt = self.prompt(
            turn.messages,
            turn.variables,
            turn.add_generation_prompt,
            turn.continue_final_message,
            shown,
            turn.documents,
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
            self.stops,
            Chosen(self.choice.name, self.choice.origin, self.choice.reason),
        )

    def _visible(self, calls: bool) -> tuple[str, ...]:
        """The control tokens that the reader needs to see."""
        needed = {*(self.thoughts or ()), *self.stops}
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
        documents: Sequence[Mapping[str, object]] = (),
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
        if documents and not (self.adapt.blocks or self.adapt.can.documents):
            raise UnsupportedParameter(
                "documents: this model's chat template has no place for documents; write them into "
                "a message",
                param="documents",
            )
        if continue_final_message:
            _check_continued(messages, add_generation_prompt)
        return render(
            self.template,
            messages,
            variables,
            self.special,
            continue_final_message,
            own={
                "add_generation_prompt": add_generation_prompt,
                "bos_token": self.bos,
                "eos_token": self.eos,
            },
            # Command R7B's template goes through the tools wherever there are documents.
            tools=[_shaped(tool) for tool in tools] or ([] if documents else None),
            adapt=self.adapt,
            documents=documents or None,
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


class _Wish(NamedTuple):
    """All that a format depends on."""

    template: str | None
    dialect: str | None
    stem: str
    info: ModelInfo
    asked: str | None
    tools: bool
    documents: bool


def chat_format(
    config: ModelConfig,
    info: ModelInfo,
    asked: str | None = None,
    tools: bool = False,
    documents: bool = False,
) -> ChatFormat:
    """The format of a model, by the template that `choose` finds.

    `asked` is the request's `chat_template`, `tools` and `documents` whether it has any. Raises
    InvalidRequest if there is no template, or if it does not compile.
    """
    wish = _Wish(config.template, config.dialect, config.path.stem, info, asked, tools, documents)
    # What clients write must not push out the formats of models.
    return _clients_format(wish) if asked is not None and is_jinja(asked) else _format(wish)


def plan_for(config: ModelConfig, info: ModelInfo, turn: Turn) -> Plan:
    """How to put `turn` to a model, and how to read the answer. Raises InvalidRequest."""
    made = chat_format(config, info, turn.template, bool(turn.tools), bool(turn.documents))
    return made.plan(turn)


def _make(wish: _Wish) -> ChatFormat:
    """Look at a template from all sides, within the time that one rendering may take."""
    try:
        with one_clock() as clock:
            made = _read(wish)
            clock.tick()
            return made
    except SecurityError as error:
        raise InvalidRequest(f"the chat template says: {error}", param="messages") from error


def _read(wish: _Wish) -> ChatFormat:
    info, told = wish.info, known(wish.info, wish.stem)
    choice = choose(told, wish.template, wish.asked, wish.tools, wish.documents)
    try:
        compiled = compile_template(choice.source)
    except InvalidRequest as error:
        if choice.origin == "request":
            error.param = "chat_template"
        raise
    choice = recognised(choice, compiled, info.bos, info.eos)
    ends = info.ends or (info.eos,)
    marker = end_marker(compiled, info.bos, info.eos)
    source = choice.source
    bagels = is_bagels(choice.name, told.names, told.architecture)
    found = bagel.DIALECT if bagels else dialect_of(source)
    spoken = dialect_named(wish.dialect) if wish.dialect else found
    if choice.name == "rewoo":
        spoken = rewoo.DIALECT
    return ChatFormat(
        compiled,
        info.bos,
        info.eos,
        info.special,
        spoken,
        thoughts_of(source),
        Spelling(token_ids(info)),
        Adapter(source, spoken, probe(compiled, info.bos, info.eos), bagels),
        choice,
        tuple(stop for stop in choice.stops if stop not in ends),
        end_warning(marker, ends, choice.stops),
    )


_clients_format = lru_cache(maxsize=8)(_make)


@lru_cache(maxsize=64)
def _format(wish: _Wish) -> ChatFormat:
    made = _make(wish)
    model = wish.info.name or wish.stem
    name = f" ({made.choice.name})" if made.choice.name else ""
    log.info("%s: chat template%s: %s", model, name, made.choice.reason)
    if made.warning:
        log.warning("%s: %s", model, made.warning)
    return made


def known(info: ModelInfo, stem: str) -> Known:
    """What is known of the templates of a loaded model, whose file is `stem`.gguf."""
    names = tuple(dict.fromkeys(name for name in (info.name, stem) if name))
    return Known(
        info.template, info.tool_template, info.document_template, names, info.architecture
    )


def token_ids(info: ModelInfo) -> Mapping[str, int | None]:
    """The ids of the control tokens, by their texts."""
    ids = info.special_ids or (None,) * len(info.special)
    return dict(zip(info.special, ids, strict=True))


def _check_planned(turn: Turn) -> None:
    if turn.tool_choice.mode == "required":
        raise UnsupportedParameter(
            "tool_choice: this chat template asks for a plan of what tools are to do, calling none "
            "of them, so no call can be required",
            param="tool_choice",
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
