"""GBNF, llama.cpp's notation of grammars, read into expressions."""

import re
from typing import NamedTuple

MAX_RULES = 1_000
MAX_DEPTH = 100
"""Parentheses in parentheses."""
MAX_REPEAT = 2_000


class GbnfError(Exception):
    """A grammar that is none; the message says where."""


class Literal(NamedTuple):
    """A text as it stands."""

    text: str


class Chars(NamedTuple):
    """One character of a class, as a regular expression."""

    pattern: str


class Rule(NamedTuple):
    """What the rule of that name matches."""

    name: str


class Repeat(NamedTuple):
    """The same, `least` to `most` times; None: any number of times."""

    of: "Expression"
    least: int
    most: int | None


class Sequence(NamedTuple):
    """One after the other."""

    parts: "tuple[Expression, ...]"


class Choice(NamedTuple):
    """One of them."""

    options: "tuple[Expression, ...]"


Expression = Literal | Chars | Rule | Repeat | Sequence | Choice

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "[": "[", "]": "]"}
HEX = {"x": 2, "u": 4, "U": 8}
NAME = re.compile(r"[A-Za-z0-9_-]+")
SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
COUNT = re.compile(r"\{\s*(\d+)\s*(,?)\s*(\d*)\s*\}")
COUNTS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class Reader:
    """Reads a grammar's text from the beginning to the end."""

    def __init__(self, text: str):
        self._text = text
        self._at = 0
        self._depth = 0

    def rules(self) -> dict[str, Expression]:
        """The rules by their names. Raises GbnfError."""
        found: dict[str, Expression] = {}
        self._skip(SPACE_AND_LINES)
        while self._at < len(self._text):
            name = self._name("a rule's name")
            if name in found:
                raise self._error(f"the rule '{name}' is defined twice")
            self._skip(SPACE)
            self._expect("::=")
            self._skip(SPACE_AND_LINES)
            found[name] = self._choice()
            if self._peek() not in ("\r", "\n", ""):
                raise self._error(f"unexpected {self._peek()!r}")
            self._skip(SPACE_AND_LINES)
            if len(found) > MAX_RULES:
                raise GbnfError(f"more than {MAX_RULES:,} rules")
        return found

    def _choice(self) -> Expression:
        options = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            self._skip(SPACE_AND_LINES)
            options.append(self._sequence())
        return Choice(tuple(options)) if len(options) > 1 else options[0]

    def _sequence(self) -> Expression:
        parts: list[Expression] = []
        while (part := self._part()) is not None:
            parts.append(self._repeated(part))
            self._skip_between()
        return Sequence(tuple(parts)) if len(parts) != 1 else parts[0]

    def _part(self) -> Expression | None:
        match self._peek():
            case '"':
                return self._literal()
            case "[":
                return self._chars()
            case ".":
                self._at += 1
                return Chars("(?s:.)")
            case "(":
                return self._group()
            case first:
                return Rule(self._name("a rule's name")) if NAME.match(first) else None

    def _group(self) -> Expression:
        self._at += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} parentheses in each other")
        self._skip(SPACE_AND_LINES)
        inner = self._choice()
        self._depth -= 1
        self._expect(")")
        return inner

    def _repeated(self, part: Expression) -> Expression:
        """The part with the counts that follow it."""
        while True:
            self._skip_between()
            if self._peek() in COUNTS and self._peek():
                part = Repeat(part, *COUNTS[self._peek()])
                self._at += 1
            elif self._peek() == "{":
                part = self._counted(part)
            else:
                return part

    def _counted(self, part: Expression) -> Repeat:
        match = COUNT.match(self._text, self._at)
        if match is None or (match[3] and not match[2]):
            raise self._error("expected {n}, {n,} or {m,n}")
        if max(len(match[1]), len(match[3])) > 4:
            raise self._error(f"more than {MAX_REPEAT:,} repetitions")
        least = int(match[1])
        most = int(match[3]) if match[3] else None if match[2] else least
        if max(least, most or 0) > MAX_REPEAT:
            raise self._error(f"more than {MAX_REPEAT:,} repetitions")
        if most is not None and most < least:
            raise self._error(f"at least {least} and at most {most} repetitions")
        self._at = match.end()
        return Repeat(part, least, most)

    def _literal(self) -> Literal:
        self._at += 1
        text = ""
        while self._peek() != '"':
            text += self._character()
        self._at += 1
        return Literal(text)

    def _chars(self) -> Chars:
        self._at += 1
        negated = self._peek() == "^"
        self._at += negated
        pattern = ""
        while self._peek() != "]":
            first = last = self._character()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                last = self._character()
            if last < first:
                raise self._error(f"the range {first!r} to {last!r} is empty")
            pattern += f"\\u{{{ord(first):x}}}-\\u{{{ord(last):x}}}"
        self._at += 1
        if not pattern:
            return Chars("(?s:.)") if negated else Chars("[a&&b]")
        return Chars(f"[{'^' * negated}{pattern}]")

    def _character(self) -> str:
        first = self._peek()
        if first in ("", "\r", "\n"):
            raise self._error("unexpected end")
        self._at += 1
        if first != "\\":
            return first
        kind = self._peek()
        self._at += 1
        if kind in ESCAPES:
            return ESCAPES[kind]
        digits = self._text[self._at : self._at + HEX.get(kind, 0)]
        try:
            value = int(digits, 16)
            "".join(chr(value)).encode()
        except (ValueError, OverflowError):
            raise self._error(f"unknown escape \\{kind}{digits}") from None
        self._at += len(digits)
        return chr(value)

    def _name(self, what: str) -> str:
        match = NAME.match(self._text, self._at)
        if match is None:
            raise self._error(f"expected {what}")
        self._at = match.end()
        return match[0]

    def _expect(self, text: str) -> None:
        if not self._text.startswith(text, self._at):
            raise self._error(f"expected {text!r}")
        self._at += len(text)

    def _skip_between(self) -> None:
        """Inside parentheses a line's end is a space."""
        self._skip(SPACE_AND_LINES if self._depth else SPACE)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _error(self, what: str) -> GbnfError:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        return GbnfError(f"{what} at line {line}, column {column}")
