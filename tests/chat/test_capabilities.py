"""What is found out about templates; tests/chat/test_history.py shows what comes of it."""

from server.chat.capabilities import Capabilities, probe
from server.chat.template import compile_template

LITTLE = Capabilities(
    system=False,
    tools=False,
    calls=False,
    several_calls=False,
    results=False,
    arguments="object",
    rows=False,
    documents=False,
    wants_null=False,
)


def test_a_template_that_shows_everything() -> None:
    source = (
        "{{ tools | tojson }}{% for m in messages %}{{ m.content }}"
        "{% for c in m.tool_calls %}{{ c | tojson }}{% endfor %}{% endfor %}"
    )
    assert probe(compile_template(source), "", "") == LITTLE._replace(
        system=True, tools=True, calls=True, several_calls=True, results=True, rows=True
    )


def test_a_template_that_shows_users_only() -> None:
    source = "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') }}"
    assert probe(compile_template(source), "", "") == LITTLE


def test_a_template_that_is_for_use_with_tools() -> None:
    source = "{{ tools | map(attribute='function') | tojson }}{{ messages[0].content }}"
    found = probe(compile_template(source), "", "")
    assert (found.system, found.tools) == (True, True)


def test_a_template_that_shows_documents() -> None:
    source = "{% for d in documents or [] %}{{ d.text }}{% endfor %}{{ messages[0].content }}"
    assert probe(compile_template(source), "", "").documents
    assert not probe(compile_template("{{ documents and 'some' }}"), "", "").documents
