"""Dialect: how one family of models writes tool calls."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from server.chat.json_text import Keys, read_calls
from server.chat.lark import ANY, Pattern, Piece, Spelling, arguments, escape, regex, up_to
from server.chat.parser import Feed, Reading, accept, skip_space, until
from server.chat.reasoning import Thoughts, read_thoughts
from server.chat.turn import Content, Tool

MAX_CALLS = 16
"""In one answer, where a grammar counts them: small models find no end by themselves."""

NAME = Pattern("", "")
"""Stands for the function's name in a Shape."""


class Shape(NamedTuple):
    """What calls look like: `mark start (before arguments after) (between ...)* end`."""

    mark: str
    """Begins the calls, and nothing else does; empty: calls have no mark, they are the answer."""
    before: tuple[Piece, ...]
    after: str = ""
    start: str = ""
    between: str | None = None
    """None: one call at most."""
    end: str = ""


class Call(NamedTuple):
    """A call that has been made. `arguments` are JSON text."""

    name: str
    arguments: str


class Answering(NamedTuple):
    """What a reader knows of an answer beforehand."""

    names: Set[str]
    """The functions that may be called; none: nothing is a call."""
    thoughts: Thoughts | None = None
    inside: bool = False
    """The prompt has begun the thoughts."""
    tools: Mapping[str, Tool] = {}


class Offer(NamedTuple):
    """What a grammar for an answer with tools has to allow."""

    tools: Sequence[Tool]
    parallel: bool
    required: bool
    spelling: Spelling
    answer: str | None = None
    """A Lark expression for what may stand instead of calls; None: any text."""
    thinking: str = ""
    """Lark for thoughts before the answer."""


Reader = Callable[[Feed, Answering], Reading[bool]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """A syntax of tool calls. To add one: a file in `dialects/` and a line in its registry."""

    name: str
    spoken: Callable[[str], bool]
    """Whether the model with this template's source speaks it."""
    shape: Shape
    read: Reader
    """Reads calls from their mark on. False: these are no calls, read nothing."""
    marks: tuple[str, ...] = ()
    """Texts that the reader needs even where they are control tokens."""
    begins: tuple[str, ...] = ()
    """Further marks that calls may begin with, anywhere."""
    opens: tuple[str, ...] = ()
    """What calls without a mark may begin with, at the start of the answer only."""
    own_prompt: bool = False
    """The template knows nothing of tools: they are told to the model in plain words."""
    ask: Callable[[Sequence[Mapping[str, object]], str], str] | None = None
    """What the user says last with the tools beside it, where no system tells them."""
    read_answer: Callable[[Feed, Answering], Reading[None]] | None = None
    """Reads whole answers, where they are more than text and calls."""
    grammar: Callable[[Offer], str] | None = None
    answer_start: str = ""
    """What the model writes before the text of an answer."""
    plans: bool = False
    """Tools are shown for a plan of their use. Nothing that is answered is a call."""

    @property
    def visible(self) -> tuple[str, ...]:
        return (*self.marks, *filter(None, (self.shape.mark,)), *self.begins)

    def write(self, calls: Sequence[Call]) -> str:
        """The calls as the model would write them."""
        shape = self.shape
        texts = [_sample(shape.before, call.name) + call.arguments + shape.after for call in calls]
        return shape.mark + shape.start + (shape.between or "").join(texts) + shape.end


def _sample(pieces: Sequence[Piece], name: str) -> str:
    return "".join(
        name if piece is NAME else piece.sample if isinstance(piece, Pattern) else piece
        for piece in pieces
    )


def read_answer(feed: Feed, dialect: Dialect, answering: Answering) -> Reading[None]:
    """Read an answer: thoughts, then text and calls."""
    if dialect.read_answer:
        yield from dialect.read_answer(feed, answering)
        return
    if answering.thoughts:
        yield from read_thoughts(feed, answering.thoughts, answering.inside)
    if not answering.names:
        yield from until(feed, (), Content)
        return
    if dialect.opens and (yield from _opened(feed, dialect, answering)):
        yield from skip_space(feed)
        feed.commit()
    marks = tuple(filter(None, (dialect.shape.mark, *dialect.begins)))
    while mark := (yield from until(feed, marks, Content)):
        end = feed.at + len(mark)
        if (yield from dialect.read(feed, answering)):
            yield from skip_space(feed)
            feed.commit()
        else:
            feed.at = 0
            yield Content(feed.take(end))


def _opened(feed: Feed, dialect: Dialect, answering: Answering) -> Reading[bool]:
    """Read calls that have no mark, if the answer begins with them."""
    yield from skip_space(feed)
    start = feed.at
    opened = yield from accept(feed, *dialect.opens)
    feed.at = start
    if opened and (yield from dialect.read(feed, answering)):
        return True
    feed.at = 0
    return False


def grammar(dialect: Dialect, offer: Offer) -> str:
    """What an answer must match: calls, or text as well where a call is not required."""
    if dialect.grammar:
        return dialect.grammar(offer)
    shape, spell = dialect.shape, offer.spelling.text
    calls = call_rules(shape, offer)
    mark = spell(shape.mark)
    if offer.required:
        return f"start: {offer.thinking} {mark} calls\n{calls}"
    if offer.answer is not None:
        return f"start: {offer.thinking} ({mark} calls | answer)\nanswer: {offer.answer}\n{calls}"
    if not shape.mark:
        begin = spell_start(shape)
        # White space belongs to neither: what might be either is read as both to its end.
        text = rf"TEXT: /(\S(?s:.*))?/ & ~{regex(f'(?s){escape(begin)}.*')}"
        return f"start: {offer.thinking} lead? (calls | TEXT)\nlead: /\\s+/\n{text}\n{calls}"
    if offer.spelling.is_control(shape.mark):
        return f"start: {offer.thinking} TEXT? ({mark} calls)?\nTEXT: /(?s:.+)/\n{calls}"
    return (
        f"start: {offer.thinking} (text_and_mark calls | TEXT)\n"
        f"text_and_mark[lazy]: {up_to(shape.mark)}\nTEXT: {ANY}\n{calls}"
    )


def no_calls(dialect: Dialect, thinking: str) -> str | None:
    """A grammar for text in which nothing can be taken for a call; None: nothing can anyway."""
    shape = dialect.shape
    if dialect.grammar or not (shape.mark or dialect.own_prompt):
        return None
    call = f".*{escape(shape.mark)}.*" if shape.mark else f"\\s*{escape(spell_start(shape))}.*"
    return f"start: {thinking} TEXT\nTEXT: {ANY} & ~{regex(f'(?s){call}')}\n"


def call_rules(shape: Shape, offer: Offer) -> str:
    """The rule `calls`: everything after the mark."""
    spell = offer.spelling.text
    kinds = "\n  | ".join(
        " ".join(
            (
                spell(*(tool.name if piece is NAME else piece for piece in shape.before)),
                arguments(tool),
                spell(shape.after),
            )
        )
        for tool in offer.tools
    )
    many = ""
    if offer.parallel and shape.between is not None:
        many = f"({spell(shape.between)} call){{0,{MAX_CALLS - 1}}}"
    return f"calls: {spell(shape.start)} call {many} {spell(shape.end)}\ncall: {kinds}\n"


def spell_start(shape: Shape) -> str:
    """What calls without a mark always begin with."""
    first = shape.before[0]
    return shape.start or (first if isinstance(first, str) else "")


def json_reader(keys: Keys, marks: tuple[str, ...], ends: tuple[str, ...] = ()) -> Reader:
    """Reads a mark, one call or an array of calls in JSON, and what may stand at the end."""

    def read(feed: Feed, _answering: Answering) -> Reading[bool]:
        yield from accept(feed, *marks)
        yield from skip_space(feed)
        if not (yield from read_calls(feed, keys)):
            return False
        if ends:
            yield from skip_space(feed)
            yield from accept(feed, *ends)
        return True

    return read


def json_call(name: Piece, key: str = "name", arguments: str = "arguments") -> tuple[Piece, ...]:
    """The start of a call that is a JSON object: `{"name": "...", "arguments": `."""
    return (f'{{"{key}": "', name, f'", "{arguments}": ')
