"""GBNF to Lark, which llguidance reads.

What is free of recursion becomes one terminal, as large as can be: terminals are matched by
automata, which is fast. A terminal takes the longest match, so one that could swallow what comes
after it is broken up, down to characters if need be. Two terminals that may stand in the same place
and begin alike are told apart by the longest match, too: there a grammar may allow less than it
says, never more.
"""

import json
from collections.abc import Iterator
from typing import assert_never

from server.engine.gbnf import (
    Chars,
    Choice,
    Expression,
    GbnfError,
    Literal,
    Reader,
    Repeat,
    Rule,
    Sequence,
)
from server.engine.gbnf_sets import Bits, Sets, names, parts, satisfied, satisfies

NOTHING = Sequence(())

MAX_LINES = 5_000
"""Rules and terminals of the Lark grammar: breaking terminals up may multiply them."""


def to_lark(text: str) -> str:
    """A grammar in GBNF as one in Lark. Raises GbnfError where llama.cpp would refuse it or die."""
    rules = Reader(text).rules()
    if "root" not in rules:
        raise GbnfError("there is no rule 'root'")
    for name, rule in rules.items():
        for used in names(rule):
            if used not in rules:
                raise GbnfError(f"the rule '{used}', used in '{name}', is not defined")
    sets = Sets(rules)
    _check_left_recursion(sets)
    finite = satisfied(rules, _is_anything)
    if "root" not in finite:
        raise GbnfError("the rule 'root' never comes to an end")
    return _Writer(
        Sets({name: _pruned(rules[name], finite) for name in rules if name in finite})
    ).write()


def _check_left_recursion(sets: Sets) -> None:
    """Raises GbnfError where a rule begins with itself."""
    rules = sets.rules
    first = {name: set(_first(rule, sets)) for name, rule in rules.items()}
    done: set[str] = set()
    for start in rules:
        path: list[tuple[str, Iterator[str]]] = [(start, iter(first[start]))]
        on_path = {start}
        while path and start not in done:
            name, following = path[-1]
            after = next((n for n in following if n not in done), None)
            if after in on_path:
                raise GbnfError(f"the rule '{after}' is left-recursive: it begins with itself")
            if after is None:
                done.add(name)
                on_path.discard(name)
                path.pop()
            else:
                path.append((after, iter(first[after])))
                on_path.add(after)


def _is_finite(expression: Expression, rules: set[str]) -> bool:
    """Whether some text of finite length matches it; `rules`: those that it holds for."""
    return satisfies(expression, _is_anything, rules)


def _is_anything(_: Literal | Chars) -> bool:
    return True


def _pruned(expression: Expression, rules: set[str]) -> Expression:
    """A finite expression without the ways that never come to an end."""
    match expression:
        case Literal() | Chars() | Rule():
            return expression
        case Repeat(of=of, least=least, most=most):
            return Repeat(_pruned(of, rules), least, most) if _is_finite(of, rules) else NOTHING
        case Sequence(parts=inside):
            return Sequence(tuple(_pruned(part, rules) for part in inside))
        case Choice(options=options):
            return Choice(tuple(_pruned(o, rules) for o in options if _is_finite(o, rules)))
        case _:
            assert_never(expression)


def _first(expression: Expression, sets: Sets) -> Iterator[str]:
    """The rules that what matches an expression may begin with."""
    if isinstance(expression, Rule):
        yield expression.name
    for part in parts(expression):
        yield from _first(part, sets)
        if isinstance(expression, Sequence) and not sets.is_nullable(part):
            return


class _Writer:
    """Writes rules down as Lark: terminals in capitals, rules that recur in small letters."""

    def __init__(self, sets: Sets):
        self._sets = sets
        self._rules = sets.rules
        self._numbers = {name: i for i, name in enumerate(self._rules)}
        self._lines: list[str] = []
        self._follow: dict[str, Bits] = dict.fromkeys(sets.recursive, 0)
        """What may come after each rule that recurs."""

    def write(self) -> str:
        """The whole grammar. Raises GbnfError."""
        self._find_what_follows()
        root = self._rule(Rule("root"), 0)
        for name, rule in self._rules.items():
            if name in self._follow:
                self._add(f"r{self._numbers[name]}: {self._rule(rule, self._follow[name])}")
            else:
                self._add(f"R{self._numbers[name]}: {self._terminal(rule)}")
        return "\n".join(["%llguidance {}", f"start: {root}", *self._lines, ""])

    def _find_what_follows(self) -> None:
        before: dict[str, Bits] = {}
        while before != self._follow:
            before = dict(self._follow)
            for name in self._follow:
                self._note(self._rules[name], before[name])

    def _note(self, expression: Expression, after: Bits) -> None:
        """`after` may come behind this part of a rule."""
        match expression:
            case Literal() | Chars():
                pass
            case Rule(name=name):
                if name in self._follow:
                    self._follow[name] |= after
            case Repeat(of=of):
                self._note(of, after | self._sets.first(of))
            case Sequence(parts=inside):
                for i, part in enumerate(inside):
                    self._note(part, self._sets.after(inside[i + 1 :], after))
            case Choice(options=options):
                for option in options:
                    self._note(option, after)
            case _:
                assert_never(expression)

    def _add(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) > MAX_LINES:
            raise GbnfError("too many ways to match the same text: terminals cannot be told apart")

    def _is_safe(self, expression: Expression, after: Bits) -> bool:
        """Whether its longest match is the right one, where `after` may come next."""
        return self._sets.is_plain(expression) and not self._sets.longer(expression) & after

    def _terminal(self, expression: Expression) -> str:
        """Inside of a terminal: a regular expression in Lark's words."""
        match expression:
            case Literal(text=text):
                return json.dumps(text)
            case Chars(pattern=pattern):
                return f"/{pattern}/"
            case Rule(name=name):
                return f"R{self._numbers[name]}"
            case Repeat(of=of):
                return f"({self._terminal(of)}){_count(expression)}"
            case Sequence(parts=inside):
                return " ".join(f"({self._terminal(part)})" for part in inside) or '""'
            case Choice(options=options):
                return " | ".join(self._terminal(option) for option in options)
            case _:
                assert_never(expression)

    def _rule(self, expression: Expression, after: Bits) -> str:
        """Inside of a rule: what can be is put into terminals of its own."""
        if self._is_safe(expression, after):
            return self._named(expression)
        match expression:
            case Rule(name=name):
                if name in self._follow:
                    return f"r{self._numbers[name]}"
                return self._rule(self._rules[name], after)
            case Repeat(of=of):
                again = after | self._sets.first(of)
                return f"({self._rule(of, again)}){_count(expression)}"
            case Sequence(parts=inside):
                return " ".join(f"({run})" for run in self._runs(inside, after))
            case Choice(options=options):
                plain = Choice(tuple(filter(self._sets.is_plain, options)))
                joined = len(plain.options) > 1 and self._is_safe(plain, after)
                rest = [o for o in options if not (joined and self._sets.is_plain(o))]
                written = [self._named(plain)] if joined else []
                return " | ".join([*written, *(f"({self._rule(o, after)})" for o in rest)])
            case Literal() | Chars():
                return self._named(expression)
            case _:
                assert_never(expression)

    def _runs(self, inside: tuple[Expression, ...], after: Bits) -> Iterator[str]:
        """The parts of a sequence, as many in one terminal as can be."""
        start = 0
        while start < len(inside):
            ends = range(len(inside), start, -1)
            safe = (
                end for end in ends
                if self._is_safe(Sequence(inside[start:end]), self._sets.after(inside[end:], after))
            )  # fmt: skip
            end = next(safe, start)
            if end > start:
                yield self._named(Sequence(inside[start:end]))
            else:
                end = start + 1
                yield self._rule(inside[start], self._sets.after(inside[end:], after))
            start = end

    def _named(self, expression: Expression) -> str:
        """A terminal of its own for an expression."""
        if isinstance(expression, Rule):
            return self._terminal(expression)
        name = f"T{len(self._lines)}"
        self._add(f"{name}: {self._terminal(expression)}")
        return name


def _count(repeat: Repeat) -> str:
    most = "" if repeat.most is None else repeat.most
    return f"{{{repeat.least},{most}}}"
