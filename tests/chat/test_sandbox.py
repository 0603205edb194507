"""Templates that try to get out, to run for ever or to fill the memory; and what they may do."""

import re
import resource
import time
from collections.abc import Iterator
from typing import Any

import pytest

from server.chat import budget
from server.chat.template import MAX_SOURCE, compile_template, render
from server.errors import InvalidRequest

USER = {"role": "user", "content": "Hi"}
LIMIT_S = 0.2
MEMORY = 6 * 2**30
"""Bytes that the process may map while it renders: more is an error, not the end of the machine."""


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(autouse=True)
def little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "LIMIT_S", LIMIT_S)


def rendered(source: str, **variables: Any) -> str:
    return render(compile_template(source), [USER], variables).text


OUTSIDE = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ (messages|groupby('__class__'))[0] }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ ('{0.__class__}'|attr('format'))('') }}",
    "{{ ['{0.__class__}'.format]|map('call', '')|list }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ cycler.__init__['__globals__'].os }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace().__class__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ lipsum.__globals__ }}",
    "{{ lipsum(n=3) }}",
    "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "{{ [].append.__self__.__class__ }}",
    "{{ dict.mro() }}",
    "{{ dict.__subclasses__() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='system') }}",
    "{{ messages[0].__setitem__('role', 'x') }}",
    "{% set messages[0].role = 'x' %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends '/etc/passwd' %}",
    "{{ environment.loader }}",
    "{{ undefined_name.__init__.__globals__ }}",
]
"""Ways to get hold of Python, or to change what was given."""


@pytest.mark.parametrize("source", OUTSIDE)
def test_there_is_no_way_out(source: str) -> None:
    try:
        text = rendered(source)
    except InvalidRequest as error:
        text = error.message.partition("says: ")[2].partition(" of a ")[0]
    assert not re.search(r"<class|<function|<bound|<code|<module| at 0x|root:", text)
    assert USER == {"role": "user", "content": "Hi"}


SLOW = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
    "{% for a in range(99999) if a in range(99999)|list %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}",
    "{% for x in [9] recursive %}{% for y in range(99999) %}{{ loop(range(9)) }}{% endfor %}"
    "{% endfor %}",
    "{% set l = range(99999)|list %}{% for a in l %}{% set x = l|sort %}{% endfor %}",
    "{% set l = range(99999)|list %}{{ l|select('in', l)|list }}",
    "{% set l = range(99999)|list %}" + "{% set x = -1 in l %}{% set x = l == l[1:] %}" * 999,
    "{{ range(99999)|map('in', range(99999)|list)|list }}",
    "{% set s = 'a' * 99999 %}{% for a in range(99999) %}{% set t = s|title %}{% endfor %}",
]
"""Templates that would run for hours."""


@pytest.mark.parametrize("source", SLOW)
def test_time_is_limited(source: str) -> None:
    template = compile_template(source)
    start = time.thread_time()
    with pytest.raises(InvalidRequest, match="the chat template says"):
        render(template, [USER], {})
    assert time.thread_time() - start < 1


DOUBLING = "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = "
LARGE = [
    "{{ 'a' * 9999999999 }}",
    "{{ 9999999999 * 'a' }}",
    "{{ [0] * 9999999999 }}",
    "{{ ['a' * 999999] * 99999 }}",
    "{{ 9 ** (9 ** 9) }}",
    "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%*d' % (9999999999, 1) }}",
    "{{ '%9999999999d'|format(1) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 9999999999) }}",
    "{{ '{x:>9999999999}'.format_map({'x': 1}) }}",
    "{{ 'a'.ljust(9999999999) }}",
    "{{ 'a'.rjust(width) }}",
    "{{ 'a'.zfill(9999999999) }}",
    "{{ ('\t' * 99999).expandtabs(99999) }}",
    "{{ ('a' * 99999).translate({97: 'b' * 99999}) }}",
    "{{ (1).to_bytes(9999999999, 'big') }}",
    "{{ 'a'|center(9999999999) }}",
    "{{ 'a'|indent(9999999999, true) }}",
    "{{ ('\n' * 99999)|indent(99999) }}",
    "{{ ('\n' * 99999)|indent('a' * 99999) }}",
    "{{ ('\n' * 99999)|indent(width='a' * 99999) }}",
    "{{ ('a' * 99999)|replace('a', 'b' * 99999) }}",
    "{{ ('a' * 99999)|replace(old='a', new='b' * 99999) }}",
    "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
    "{{ ('b' * 99999).join('a' * 99999) }}",
    "{{ ('a' * 99999)|join('b' * 99999) }}",
    "{{ ['a' * 999999]|batch(99999, 'a' * 999999)|first|join }}",
    "{{ range(99999)|map('replace', '', 'b' * 999999)|join }}",
    "{{ range(99999)|map(attribute='x')|map('default', 'b' * 999999)|tojson }}",
    "{{ range(99999)|map(attribute='x')|map('default', 'b' * 999999)|list|string }}",
    "{{ [[]]|tojson(indent=9999999999) }}",
    "{{ range(99999)|list|tojson(separators=['a' * 99999, ':']) }}",
    "{{ 1.5|round(9999999999) }}",
    "{{ range(9999)|map('list')|sum(start=[]) }}",
    f"{DOUBLING}ns.x ~ ns.x %}}{{% endfor %}}",
    f"{DOUBLING}ns.x + ns.x %}}{{% endfor %}}",
    f"{DOUBLING}[ns.x, ns.x] %}}{{% endfor %}}{{{{ ns.x }}}}",
    f"{DOUBLING}(ns.x, ns.x) %}}{{% endfor %}}{{{{ ns.x|tojson }}}}",
    f"{DOUBLING}{{'a': ns.x, 'b': ns.x}} %}}{{% endfor %}}{{{{ ns.x|string }}}}",
    f"{DOUBLING}dict(a=ns.x, b=ns.x) %}}{{% endfor %}}{{{{ ns.x == 1 }}}}",
    f"{DOUBLING}[ns.x]|list + [ns.x] %}}{{% endfor %}}{{{{ ns.x }}}}",
    f"{DOUBLING}'%s%s' % (ns.x, ns.x) %}}{{% endfor %}}",
    f"{DOUBLING}'{{}}{{}}'.format(ns.x, ns.x) %}}{{% endfor %}}",
    f"{DOUBLING}[ns.x, ns.x]|join %}}{{% endfor %}}",
    "{% macro m(s) %}" + "{{ s }}" * 99 + "{% endmacro %}{{ m(m(m(m(m('aaaa'))))) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1, varargs, varargs) }}{% else %}{{ varargs }}{% endif %}"
    "{% endmacro %}{{ m(90, 'a') }}",
    "{% set s %}{% for i in range(99999) %}" + "a" * 999 + "{% endfor %}{% endset %}",
    "{% filter upper %}{% for i in range(99999) %}" + "a" * 999 + "{% endfor %}{% endfilter %}",
    "{% for i in range(99999) %}" + "a" * 999 + "{% endfor %}",
    "{% set s = 'a' * 999999 %}" + "{{ s }}" * 99,
    "".join(f"{{% set a{i} = 'a' * 999999 ~ 'b' %}}" for i in range(999)),
    "{% set s = 'a' * 999999 %}{% set l = [" + "s[1:], " * 99 + "] %}",
]
"""Templates that would fill gigabytes."""


@pytest.mark.parametrize("source", LARGE, ids=range(len(LARGE)))
def test_memory_is_limited(source: str) -> None:
    template = compile_template(source)
    start = time.thread_time()
    with pytest.raises(InvalidRequest, match="the chat template says") as caught:
        render(template, [USER], {"width": 9999999999})
    assert "undefined" not in caught.value.message
    assert not isinstance(caught.value.__cause__, MemoryError)
    assert time.thread_time() - start < 1


NOT_COMPILED = [
    "{{ " + "9" * 5000 + " }}",
    "{% for x in y %}" * 30 + "{% endfor %}" * 30,
    "{% if x %}" * 120 + "{% endif %}" * 120,
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{{ " + "-" * 50_000 + "1 }}",
    "{{ 1" + "+1" * 50_000 + " }}",
    "{{ 'x'|urlize }}",
    "a" * (MAX_SOURCE + 1),
]


@pytest.mark.parametrize("source", NOT_COMPILED, ids=range(len(NOT_COMPILED)))
def test_what_does_not_compile_is_told(source: str) -> None:
    with pytest.raises(InvalidRequest, match="the chat template"):
        compile_template(source)


@pytest.mark.parametrize(
    "source",
    ["{{ 'a' * 9999999999 }}", "{{ 'a'|center(9999999999) }}", "{{ 'a' ~ 9 ** (9 ** 9) }}"],
)
def test_nothing_is_computed_while_a_template_compiles(source: str) -> None:
    start = time.thread_time()
    compile_template(source)
    assert time.thread_time() - start < 0.5


ORDINARY = {
    "{{ [1, 2][0] + 1 }}": "2",
    "{{ (1, 'a')[1] ~ 2 ~ none }}": "a2None",
    "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}": "12",
    "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}": "a1",
    "{{ 'abc'[::-1] }}{{ [1, 2, 3][1:]|join('-') }}": "cba2-3",
    "{{ '%s is %05.2f' % ('x', 1) }}": "x is 01.00",
    "{{ '{}-{a:>3}'.format(1, a=2) }}": "1-  2",
    "{{ 2 ** 10 }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 'ab' * 2 }} {{ 1 < 2 < 3 }}": "1024 3 1 abab True",
    "{{ 'a\nb'|indent(2) }}": "a\n  b",
    "{{ 'a-b'.replace('-', '+')|replace('a', 'c') }}": "c+b",
    "{{ ','.join(['a', 'b']) }}": "a,b",
    "{{ [1, 2, 3]|sum }} {{ [{'a': 1}]|sum('a') }} {{ [3, 1]|sort }}": "6 1 [1, 3]",
    "{{ messages|map(attribute='content')|join(' ') }}": "Hi",
    "{{ messages|join(', ', attribute='role') }}": "user",
    "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}": "1",
    "{{ messages|selectattr('role', 'in', ['user'])|map(attribute='content')|first }}": "Hi",
    "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% set ns.n = ns.n + i %}{% endfor %}"
    "{{ ns.n }}": "36",
    "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}{% call m(1) %}x{% endcall %}":
    "12x",
    "{% for x in [[1, [2]]] recursive %}{{ x if x is number else loop(x) }}{% endfor %}": "12",
    "{{ nothing|default(9999999) }}": "9999999",
    "{{ '12345678901'|int }}": "12345678901",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}": "ab",
    "{{ {'b': 1, 'a': [2]}|tojson(indent=2) }}": '{\n  "b": 1,\n  "a": [\n    2\n  ]\n}',
    "{{ namespace(a=1) }}": "<Namespace>",
    "{{ 'a' is in 'ab' }}{{ 1 is eq 1 }}": "TrueTrue",
    "{{ ('x'|safe) ~ '<' }}{{ '<'|e }}": "x<&lt;",
}  # fmt: skip


@pytest.mark.parametrize(("source", "text"), ORDINARY.items())
def test_ordinary_templates_work(source: str, text: str) -> None:
    assert rendered(source) == text


def test_a_long_conversation_is_no_attack() -> None:
    """Neither if the template puts it together piece by piece, nor if the text is large."""
    source = (
        "{% set ns = namespace(l=[], t='') %}{% for m in messages %}"
        "{% set ns.l = ns.l + [m] %}{% set ns.t = ns.t + m.content %}{% endfor %}"
        "{{ ns.l|length }} {{ ns.t|length }}"
    )
    many = [{"role": "user", "content": "x" * 400}] * 1000
    assert render(compile_template(source), many, {}).text == "1000 400000"
    large = [{"role": "user", "content": "x" * 8_000_000}]
    assert render(compile_template(source), large, {}).text == "1 8000000"
