"""Conversations made to fit templates that know less than what is said."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from server.chat.capabilities import probe
from server.chat.dialect import Dialect
from server.chat.dialects import generic, hermes
from server.chat.history import Adapter
from server.chat.template import Conversation, compile_template, render

Messages = Sequence[Mapping[str, object]]

PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
USERS = "{% for m in messages %}{{ m.content if m.role in ('user', 'assistant') }};{% endfor %}"
CALLS = (
    "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls %}CALL{% endfor %}{% endfor %}"
)
TOOL: dict[str, object] = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}


def call(id: str, arguments: object, name: str = "f") -> dict[str, object]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, object], **fields: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def result(id: str, content: str = "42") -> dict[str, object]:
    return {"role": "tool", "tool_call_id": id, "content": content}


ASKED = {"role": "user", "content": "Hi"}
HISTORY: Messages = [
    {"role": "system", "content": "S"},
    ASKED,
    calling(call("a", {"x": 1}), call("b", {"x": 2})),
    result("a"),
    result("b", "43"),
    {"role": "user", "content": "And?"},
]


def written(
    source: str,
    messages: Messages,
    tools: Messages | None = None,
    dialect: Dialect = generic.DIALECT,
) -> str:
    template = compile_template(source)
    adapt = Adapter(source, dialect, probe(template, "", ""))
    return render(template, messages, {}, tools=tools, adapt=adapt).text


def test_a_template_without_tools() -> None:
    text = written(PLAIN, HISTORY, [TOOL])
    assert text.startswith("[system]S\n\nYou can call functions.")
    assert '{"name": "f", "description": "d", "parameters": {"type": "object"}}' in text
    assert (
        '[user]Hi[assistant]{"tool_calls": [{"name": "f", "arguments": {"x": 1}}, '
        '{"name": "f", "arguments": {"x": 2}}]}'
        "[user]Result of f:\n42\n\nResult of f:\n43\n\nAnd?"
    ) in text


def test_tools_without_a_system_message() -> None:
    text = written(PLAIN, [ASKED], [TOOL])
    assert text.startswith("[system]You can call functions.")
    assert text.endswith("[user]Hi")


def test_a_template_without_system_messages() -> None:
    later = {"role": "system", "content": "L"}
    assert written(USERS, [*HISTORY[:2], later]) == "S\n\nHi;L;"
    assert written(USERS, [later, {"role": "assistant", "content": "A"}]) == "L;A;"


def test_text_beside_calls_is_kept() -> None:
    text = written(PLAIN, [ASKED, calling(call("a", "{}"), content="Look:")])
    assert text == '[user]Hi[assistant]Look:\n{"tool_calls": [{"name": "f", "arguments": {}}]}'


def test_calls_that_a_template_shows_without_arguments_are_written_out() -> None:
    text = written(CALLS, [ASKED, calling(call("a", {"x": 1}))], [TOOL], hermes.DIALECT)
    assert text == (
        'f;[user]Hi[assistant]<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
    )


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("{{ c.function.arguments | tojson }}", '{"x": "é"}'),
        ("{{ c.function.arguments }}", '{"x": "é"}'),
        ("{{ 'args: ' + c.function.arguments }}", 'args: {"x": "é"}'),
        ("{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}", "x=é"),
    ],
)
def test_arguments_as_the_template_wants_them(shown: str, expected: str) -> None:
    source = CALLS.replace("CALL", f"{{{{ c.function.name }}}}({shown})")
    messages = [ASKED, calling(call("a", {"x": "é"}))]
    assert written(source, messages, None, hermes.DIALECT) == f"[user]Hi[assistant]f({expected})"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [("{{ m.content }}", ""), ("{{ m.content | trim }}", ""), ("{{ '' + m.content }}", "")],
)
def test_null_content_is_no_word(shown: str, expected: str) -> None:
    source = CALLS.replace("{{ m.content }}", shown).replace(
        "CALL", "{{ c.function.arguments.values() | list }}"
    )
    text = written(source, [ASKED, calling(call("a", {"x": 1}))], None, hermes.DIALECT)
    assert text == f"[user]Hi[assistant]{expected}[1]"


def test_null_content_where_it_is_wanted() -> None:
    source = (
        "{% for m in messages %}{% if m.content is none %}"
        "{{ m.tool_calls[0].function.arguments | tojson }}{% endif %}{% endfor %}"
    )
    text = written(source, [ASKED, calling(call("a", {"x": 1}), content="")], None, hermes.DIALECT)
    assert text == '{"x": 1}'


ONE_CALL = (
    "{% for m in messages %}{% if m.tool_calls %}"
    "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call') }}{% endif %}"
    "<{{ m.content }}{{ m.tool_calls[0].function.name }}"
    "{{ m.tool_calls[0].function.arguments | tojson }}>"
    "{% else %}[{{ m.name }}]{{ m.content }}{% endif %}{% endfor %}"
)


def test_several_calls_one_by_one_each_with_its_result() -> None:
    messages = [
        ASKED,
        calling(call("a", {"x": 1}, "f"), call("b", {"x": 2}, "g"), content="T"),
        result("b", "rb"),
        result("a", "ra"),
        {"role": "user", "content": "And?"},
    ]
    assert written(ONE_CALL, messages, None, hermes.DIALECT) == (
        '[]Hi<Tf{"x": 1}>[f]ra<g{"x": 2}>[g]rb[]And?'
    )


def test_ids_of_nine_characters() -> None:
    check = "{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}{{ c.id }}"
    source = CALLS.replace("CALL", check + "{{ c.function.arguments | tojson }}")
    source += "{{ messages[-1].tool_call_id }}"
    messages = [ASKED, calling(call("call_123456", {"x": 1})), result("call_123456")]
    text = written(source, messages, None, hermes.DIALECT)
    id = text[-9:]
    assert id.isalnum()
    assert text == f'[user]Hi[assistant]{id}{{"x": 1}}[tool]42{id}'
    kept = [ASKED, calling(call("abcDEF123", {"x": 1})), result("abcDEF123")]
    assert written(source, kept, None, hermes.DIALECT).endswith("abcDEF123")


def test_thoughts_beside_calls_by_the_name_that_the_template_reads() -> None:
    source = (
        "{% for message in messages %}{{ message.thinking }}"
        "{% for c in message.tool_calls %}{{ c.function.arguments | tojson }}{% endfor %}"
        "{% endfor %}"
    )
    message = calling(call("a", {"x": 1}), reasoning_content="hm ")
    assert written(source, [ASKED, message], None, hermes.DIALECT) == 'hm {"x": 1}'


def test_the_adapter_changes_nothing_that_fits() -> None:
    source = CALLS.replace("CALL", "{{ c.function.arguments | tojson }}")
    messages: list[dict[str, Any]] = [ASKED, {"role": "assistant", "content": "A"}]
    template = compile_template(source)
    adapt = Adapter(source, hermes.DIALECT, probe(template, "", ""))
    assert adapt(Conversation(messages, [TOOL])) == Conversation(messages, [TOOL])


@pytest.mark.parametrize(("refuses", "joined"), [(True, True), (False, False)])
def test_users_in_a_row_are_joined_for_templates_that_refuse_them(
    refuses: bool, joined: bool
) -> None:
    check = "{{ raise_exception('alternate') }}" if refuses else ""
    source = (
        "{% for m in messages %}{% if loop.previtem and loop.previtem.role == m.role %}"
        + check
        + "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    compiled = compile_template(source)
    adapter = Adapter(source, generic.DIALECT, probe(compiled, "", ""))
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    text = render(compiled, messages, {}, adapt=adapter).text
    assert text == ("[user]a\n\nb" if joined else "[user]a[user]b")
