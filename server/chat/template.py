"""Chat templates: jinja2 set up as transformers does it.

A template is code that came with the model, hence the sandbox. `{% generation %}` only matters for
training; its body is rendered in place.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.chat.literal import contains, control_texts, map_strings, pick_marks, strings
from server.errors import InvalidRequest
from server.ipc import Text

RENDER_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
)
"""What a template's code may raise."""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: the body, in place."""

    tags = {"generation"}  # noqa: RUF012  (declared so by jinja2)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes for HTML, which models were not trained on.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_listed,
    )


def _listed(value: object) -> list[object]:
    """What jinja2's filters give, as a list: `tools | map(...) | tojson`."""
    if isinstance(value, Iterator):
        return list(cast("Iterator[object]", value))
    raise TypeError(f"a {type(value).__name__} has no JSON")


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled chat template and its source."""

    source: str
    compiled: jinja2.Template


@lru_cache(maxsize=64)
def compile_template(source: str) -> Template:
    """Compile `source`. Raises InvalidRequest with jinja2's reason and line."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _tojson
    functions = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    try:
        return Template(source, environment.from_string(source, functions))
    except jinja2.TemplateSyntaxError as error:
        raise InvalidRequest(
            f"the chat template does not compile: {error.message}, line {error.lineno}",
            param="messages",
        ) from error
    except RecursionError as error:
        raise InvalidRequest(
            "the chat template does not compile: it is nested too deeply", param="messages"
        ) from error


class Conversation(NamedTuple):
    """What a template writes down. Tools are in OpenAI's shape; None where there are none."""

    messages: Sequence[Mapping[str, object]]
    tools: Sequence[Mapping[str, object]] | None = None


def _as_it_is(conversation: Conversation) -> Conversation:
    return conversation


def render(
    template: Template,
    messages: Sequence[Mapping[str, object]],
    variables: Mapping[str, object],
    special: tuple[str, ...] = (),
    continue_final: bool = False,
    own: Mapping[str, object] | None = None,
    tools: Sequence[Mapping[str, object]] | None = None,
    adapt: Callable[[Conversation], Conversation] = _as_it_is,
) -> Text:
    """The prompt for `messages`; `variables` and `tools` come from the client too, `own` from us.

    `adapt` makes the conversation fit the template. What it adds is ours and may hold control
    tokens. With `continue_final` the prompt ends where the last message's content ends. Raises
    InvalidRequest with the template's own words.
    """
    control = control_texts(special)
    client: list[object] = [*messages, *(tools or ()), variables]
    if not continue_final and not (control and contains(client, control.pattern)):
        return Text(_run(template, adapt(Conversation(messages, tools)), variables, own or {}))
    marks = pick_marks(chain(strings(client), (template.source, *special)))
    if control:
        wrap = marks.wrapper(control.pattern)
        messages = [
            {
                key: value if key == "role" else map_strings(value, wrap)
                for key, value in message.items()
            }
            for message in messages
        ]
        variables = cast("Mapping[str, object]", map_strings(variables, wrap))
        if tools is not None:
            tools = cast("Sequence[Mapping[str, object]]", map_strings(tools, wrap))
    if continue_final:
        messages = _mark_end(messages, marks.cut)
    conversation = adapt(Conversation(messages, tools))
    text = marks.unescape(_run(template, conversation, variables, own or {}))
    if continue_final:
        text = _cut(text, marks.cut)
    return marks.strip(text, control)


def _run(
    template: Template,
    conversation: Conversation,
    variables: Mapping[str, object],
    own: Mapping[str, object],
) -> str:
    try:
        text = template.compiled.render(
            {**variables, **own, "messages": conversation.messages, "tools": conversation.tools}
        )
        # A lone surrogate has no UTF-8, so no tokenizer could read it.
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the text has a lone surrogate, U+{ord(error.object[error.start]):04X}",
            param="messages",
        ) from error
    except RENDER_ERRORS as error:
        raise InvalidRequest(f"the chat template says: {error}", param="messages") from error
    return text


def _mark_end(messages: Sequence[Mapping[str, object]], cut: str) -> list[Mapping[str, object]]:
    """The messages, the last one's content ending in the mark and a space."""
    *rest, last = messages
    # The space tells later whether the template trims content.
    return [*rest, {**last, "content": f"{last['content']}{cut} "}]


def _cut(text: str, cut: str) -> str:
    """What stands before the mark, trimmed if the template trims content."""
    before, mark, after = text.rpartition(cut)
    if not mark:
        raise InvalidRequest(
            "continue_final_message: the chat template leaves out the last message's content",
            param="continue_final_message",
        )
    # Two marks where a template repeats content: the earlier one is no more wanted.
    before = before.replace(cut + " ", "").replace(cut, "")
    return before if after.startswith(" ") else before.rstrip()
