"""Which characters the expressions of a grammar begin with, and which may lengthen a match.

Sets of characters are bits: one for each of ASCII, and one for all others together. They may be
too large, never too small.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import assert_never

from server.engine.gbnf import Chars, Choice, Expression, Literal, Repeat, Rule, Sequence

Bits = int
OTHERS: Bits = 1 << 128
ESCAPED = re.compile(r"\\u\{([0-9a-f]+)\}")


def union(sets: Iterator[Bits]) -> Bits:
    """All characters of several sets."""
    found = 0
    for each in sets:
        found |= each
    return found


def parts(expression: Expression) -> tuple[Expression, ...]:
    """The expressions directly inside of one."""
    match expression:
        case Literal() | Chars() | Rule():
            return ()
        case Repeat(of=of):
            return (of,)
        case Sequence(parts=inside) | Choice(options=inside):
            return inside
        case _:
            assert_never(expression)


def names(expression: Expression) -> Iterator[str]:
    """The rules that an expression uses."""
    if isinstance(expression, Rule):
        yield expression.name
    for part in parts(expression):
        yield from names(part)


Test = Callable[[Literal | Chars], bool]


def satisfied(rules: Mapping[str, Expression], test: Test) -> set[str]:
    """The rules that match some finite text of which every piece passes the test."""
    found: set[str] = set()
    while new := {n for n in rules.keys() - found if satisfies(rules[n], test, found)}:
        found |= new
    return found


def satisfies(expression: Expression, test: Test, rules: set[str]) -> bool:
    """Whether it can be matched by pieces that pass the test and by these rules alone."""
    match expression:
        case Literal() | Chars():
            return test(expression)
        case Rule(name=name):
            return name in rules
        case Repeat(of=of, least=least):
            return not least or satisfies(of, test, rules)
        case Sequence(parts=inside):
            return all(satisfies(part, test, rules) for part in inside)
        case Choice(options=options):
            return any(satisfies(option, test, rules) for option in options)
        case _:
            assert_never(expression)


class Sets:
    """What is known of a grammar's rules, which are all defined."""

    def __init__(self, rules: dict[str, Expression]):
        self.rules = rules

    @cached_property
    def nullable(self) -> set[str]:
        """The rules that match the empty text."""
        return satisfied(self.rules, _is_empty)

    @cached_property
    def recursive(self) -> set[str]:
        """The rules that use themselves, and those that use such."""
        plain: set[str] = set()
        uses = {name: set(names(rule)) for name, rule in self.rules.items()}
        while new := {n for n, used in uses.items() if n not in plain and used <= plain}:
            plain |= new
        return set(self.rules) - plain

    @cached_property
    def _first(self) -> dict[str, Bits]:
        found = dict.fromkeys(self.rules, 0)
        while True:
            now = {name: self._first_of(rule, found) for name, rule in self.rules.items()}
            if now == found:
                return found
            found = now

    @cached_property
    def _all(self) -> dict[str, Bits]:
        found = dict.fromkeys(self.rules, 0)
        while True:
            now = {name: self._all_of(rule, found) for name, rule in self.rules.items()}
            if now == found:
                return found
            found = now

    @cached_property
    def _longer(self) -> dict[str, Bits]:
        return {}

    def is_plain(self, expression: Expression) -> bool:
        """Whether it is free of recursion."""
        return self.recursive.isdisjoint(names(expression))

    def is_nullable(self, expression: Expression) -> bool:
        """Whether it matches the empty text."""
        return satisfies(expression, _is_empty, self.nullable)

    def first(self, expression: Expression) -> Bits:
        """What its matches begin with."""
        return self._first_of(expression, self._first)

    def after(self, rest: tuple[Expression, ...], after: Bits) -> Bits:
        """What comes where `rest` is due, and `after` when it is over."""
        for part in reversed(rest):
            after = self.first(part) | (after if self.is_nullable(part) else 0)
        return after

    def longer(self, expression: Expression) -> Bits:
        """What may come right after a match and be part of a longer one. Not for recursion."""
        match expression:
            case Literal() | Chars():
                return 0
            case Rule(name=name):
                if name not in self._longer:
                    self._longer[name] = self.longer(self.rules[name])
                return self._longer[name]
            case Repeat(of=of, least=least, most=most):
                inside, again = self.longer(of), self.first(of)
                if inside & again:
                    return self._all_of(of, self._all)
                exactly = least == most and not self.is_nullable(of)
                return inside if exactly else inside | again
            case Sequence(parts=inside):
                return self._longer_sequence(inside)
            case Choice(options=options):
                return self._longer_choice(options)
            case _:
                assert_never(expression)

    def _longer_sequence(self, inside: tuple[Expression, ...]) -> Bits:
        found = 0
        for i, part in enumerate(inside):
            rest = inside[i + 1 :]
            longer = self.longer(part)
            if longer & self.after(rest, 0):
                return self._all_of(Sequence(inside), self._all)
            if all(map(self.is_nullable, rest)):
                found |= longer | self.after(rest, 0)
        return found

    def _longer_choice(self, options: tuple[Expression, ...]) -> Bits:
        texts = [option.text for option in options if isinstance(option, Literal)]
        classes = [option for option in options if isinstance(option, Chars)]
        if len(texts) + len(classes) == len(options) and all(len(text) == 1 for text in texts):
            return 0
        if len(texts) == len(options):
            pairs = ((a, b) for a in texts for b in texts if a != b and b.startswith(a))
            return union(_bit(b[len(a)]) for a, b in pairs)
        seen = 0
        for option in options:
            first = self.first(option)
            if seen & first:
                return self._all_of(Choice(options), self._all)
            seen |= first
        empty = any(map(self.is_nullable, options))
        return union(map(self.longer, options)) | (seen if empty else 0)

    def _first_of(self, expression: Expression, rules: dict[str, Bits]) -> Bits:
        match expression:
            case Literal(text=text):
                return _bit(text[0]) if text else 0
            case Chars(pattern=pattern):
                return _bits(pattern)
            case Rule(name=name):
                return rules[name]
            case Repeat(of=of):
                return self._first_of(of, rules)
            case Choice(options=options):
                return union(self._first_of(option, rules) for option in options)
            case Sequence(parts=inside):
                found = 0
                for part in inside:
                    found |= self._first_of(part, rules)
                    if not self.is_nullable(part):
                        break
                return found
            case _:
                assert_never(expression)

    def _all_of(self, expression: Expression, rules: dict[str, Bits]) -> Bits:
        match expression:
            case Literal(text=text):
                return union(map(_bit, text))
            case Chars(pattern=pattern):
                return _bits(pattern)
            case Rule(name=name):
                return rules[name]
            case Repeat() | Sequence() | Choice():
                return union(self._all_of(part, rules) for part in parts(expression))
            case _:
                assert_never(expression)


def _is_empty(piece: Literal | Chars) -> bool:
    return piece == Literal("")


def _bit(character: str) -> Bits:
    return 1 << ord(character) if character.isascii() else OTHERS


@lru_cache(maxsize=1024)
def _bits(pattern: str) -> Bits:
    """The characters of a class."""
    known = re.compile(ESCAPED.sub(lambda m: f"\\U{int(m[1], 16):08x}", pattern))
    far = any(int(m[1], 16) > 127 for m in ESCAPED.finditer(pattern))
    beyond = OTHERS if far or pattern.startswith("[^") or "." in pattern else 0
    return beyond | union(1 << c for c in range(128) if known.fullmatch(chr(c)))
