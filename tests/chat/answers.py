"""Reading answers in tests: parts folded together, and every way to cut the text."""

from collections.abc import Callable, Iterable, Sequence

from server.chat.dialect import Answering, Dialect, read_answer
from server.chat.parser import StreamParser
from server.chat.reasoning import Thoughts
from server.chat.turn import CallArguments, CallBegin, Content, Parser, Part, Reasoning, Tool

WEATHER = Tool(
    "get_weather",
    "The weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    strict=True,
)
PYTHON = Tool("python", "Run code", {"type": "object", "properties": {"code": {"type": "string"}}})
TOOLS = (WEATHER, PYTHON)

Folded = list[tuple[str, ...]]
"""`("content", text)`, `("reasoning", text)`, `("call", name, arguments)`."""


def answering(
    tools: Sequence[Tool] = TOOLS, thoughts: Thoughts | None = None, inside: bool = False
) -> Answering:
    by_name = {tool.name: tool for tool in tools}
    return Answering(frozenset(by_name), thoughts, inside, by_name)


def fold(parts: Iterable[Part]) -> Folded:
    """The parts as a client puts them together. Checks indexes and ids on the way."""
    folded: list[list[str]] = []
    calls: list[list[str]] = []
    ids: set[str] = set()
    for part in parts:
        match part:
            case CallBegin(index, id, name):
                assert index == len(calls)
                assert len(id) == len("call_") + 24
                assert id not in ids
                ids.add(id)
                calls.append(["call", name, ""])
                folded.append(calls[-1])
            case CallArguments(index, text):
                assert text
                calls[index][2] += text
            case Content(text) | Reasoning(text):
                assert text
                kind = type(part).__name__.lower()
                if folded and folded[-1][0] == kind:
                    folded[-1][1] += text
                else:
                    folded.append([kind, text])
    return [tuple(item) for item in folded]


def run(parser: Parser, pieces: Iterable[str]) -> Folded:
    parts = [part for piece in pieces for part in parser.push(piece)]
    return fold([*parts, *parser.finish()])


def read_every_way(new: Callable[[], Parser], text: str) -> Folded:
    """The folded answer, the same for every cut in two and for single characters."""
    whole = run(new(), [text])
    for i in range(1, len(text)):
        assert run(new(), [text[:i], text[i:]]) == whole, (text[:i], text[i:])
    assert run(new(), text) == whole
    return whole


def read(dialect: Dialect, text: str, given: Answering | None = None) -> Folded:
    """What `dialect` reads, whichever way the text is cut."""
    known = answering() if given is None else given
    return read_every_way(
        lambda: StreamParser(lambda feed: read_answer(feed, dialect, known)), text
    )
