"""Chat templates: jinja2 set up as transformers does it, in a sandbox with limits."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple, NoReturn, cast

import jinja2

from server.chat.budget import budget
from server.chat.literal import contains, control_texts, map_strings, pick_marks, strings
from server.chat.sandbox import Sandbox
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
    MemoryError,
)
"""What a template's code may raise."""

MAX_SOURCE = 128 * 1024
"""Characters of a template."""


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


SANDBOX = Sandbox()


class Template(NamedTuple):
    """A compiled chat template and its source."""

    source: str
    compiled: jinja2.Template


def compile_template(source: str) -> Template:
    """Compile `source`. Raises InvalidRequest with jinja2's reason and line."""
    if len(source) > MAX_SOURCE:
        raise InvalidRequest(
            f"the chat template has {len(source):,} characters, at most {MAX_SOURCE:,} are served",
            param="messages",
        )
    functions = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    try:
        return Template(source, SANDBOX.from_string(source, functions))
    except jinja2.TemplateSyntaxError as error:
        reason = f"{error.message}, line {error.lineno}"
    except (RecursionError, MemoryError):
        reason = "it is nested too deeply"
    # What Python says of the code that jinja2 makes of it.
    except (SyntaxError, ValueError, OverflowError) as error:
        reason = str(error)
    raise InvalidRequest(f"the chat template does not compile: {reason}", param="messages")


class Conversation(NamedTuple):
    """What a template writes down. Tools are in OpenAI's shape.

    None where there are none, as transformers has it: templates test for that.
    """

    messages: Sequence[Mapping[str, object]]
    tools: Sequence[Mapping[str, object]] | None = None
    documents: Sequence[Mapping[str, object]] | None = None


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
    documents: Sequence[Mapping[str, object]] | None = None,
) -> Text:
    """The prompt for `messages`; `variables`, `tools` and `documents` are the client's too.

    `own` variables are ours. `adapt` makes the conversation fit the template. What it adds is ours
    and may hold control tokens. With `continue_final` the prompt ends where the last message's
    content ends. Raises InvalidRequest with the template's own words.
    """
    control = control_texts(special)
    client: list[object] = [*messages, *(tools or ()), *(documents or ()), variables]
    if not continue_final and not (control and contains(client, control.pattern)):
        conversation = adapt(Conversation(messages, tools, documents))
        return Text(_run(template, conversation, variables, own or {}))
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
        if documents is not None:
            documents = cast("Sequence[Mapping[str, object]]", map_strings(documents, wrap))
    if continue_final:
        messages = _mark_end(messages, marks.cut)
    conversation = adapt(Conversation(messages, tools, documents))
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
        given = {
            **variables,
            **own,
            "messages": conversation.messages,
            "tools": conversation.tools,
            "documents": conversation.documents,
        }
        n_input = sum(map(len, strings(given)))
        with budget(n_input, len(conversation.messages)):
            text = template.compiled.render(given)
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
