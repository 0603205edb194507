"""The pieces that readers are made of, and texts cut anywhere."""

import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from server.chat.parser import (
    Feed,
    Reading,
    StreamParser,
    accept,
    match,
    read_to,
    skip_space,
    until,
)
from server.chat.turn import Content, Reasoning
from tests.chat.answers import read_every_way

Reader = Callable[[Feed], Reading[None]]


def told(reader: Callable[[Feed], Reading[object]]) -> Reader:
    """A reader that tells as content what `reader` returned and what it left."""

    def read(feed: Feed) -> Reading[None]:
        result = yield from reader(feed)
        yield Content(f"{result}|{feed.at}|")
        yield from until(feed, (), Content, trim=False)

    return read


def outcome(reader: Callable[[Feed], Reading[object]], text: str) -> str:
    found = read_every_way(lambda: StreamParser(told(reader)), text)
    return found[0][1]


class TestUntil:
    def test_text_up_to_a_mark(self) -> None:
        assert outcome(lambda feed: until(feed, ("<a>", "<b>"), Content), "x y \n<b>z") == (
            "x y<b>|2|<b>z"
        )

    def test_space_before_a_mark_may_count(self) -> None:
        def reader(feed: Feed) -> Reading[object]:
            return until(feed, ("<b>",), Content, trim=False)

        assert outcome(reader, "x \n<b>z") == "x \n<b>|0|<b>z"

    def test_a_mark_that_never_comes(self) -> None:
        assert outcome(lambda feed: until(feed, ("<ab>",), Content), "x <a") == "x <aNone|0|"

    def test_what_cannot_become_a_mark_comes_at_once(self) -> None:
        parser = StreamParser(lambda feed: told(lambda f: until(f, ("<call>",), Content))(feed))
        assert parser.push("a <b") == [Content("a <b")]
        assert parser.push(" <ca") == []
        assert parser.push("t>") == [Content(" <cat>")]

    @given(st.text(st.sampled_from("<ab> \n"), max_size=14))
    def test_nothing_is_lost(self, text: str) -> None:
        def reader(feed: Feed) -> Reading[None]:
            while mark := (yield from until(feed, ("<ab>", "<a>"), Content, False)):
                yield Reasoning(feed.take(feed.at + len(mark)))

        parser = StreamParser(reader)
        parts = [part for char in text for part in parser.push(char)] + parser.finish()
        joined = "".join(part.text for part in parts if isinstance(part, Content | Reasoning))
        assert joined == text
        marks = [part.text for part in parts if isinstance(part, Reasoning)]
        assert marks == re.findall("<ab>|<a>", text)


class TestAccept:
    def test_the_longest(self) -> None:
        assert outcome(lambda feed: accept(feed, "a", "abc"), "abcd") == "abc|3|d"

    def test_a_shorter_one_after_waiting(self) -> None:
        assert outcome(lambda feed: accept(feed, "a", "abc"), "abd") == "a|1|bd"

    def test_a_shorter_one_at_the_end(self) -> None:
        assert outcome(lambda feed: accept(feed, "a", "abc"), "ab") == "a|1|b"

    def test_none(self) -> None:
        assert outcome(lambda feed: accept(feed, "x"), "ab") == "None|0|ab"

    def test_a_certain_one_does_not_wait(self) -> None:
        parser = StreamParser(told(lambda feed: accept(feed, "ab")))
        assert parser.push("a") == []
        assert parser.push("b") == [Content("ab|2|")]


class TestMatch:
    def test_as_long_as_it_gets(self) -> None:
        def reader(feed: Feed) -> Reading[object]:
            found = yield from match(feed, re.compile("[a-z]+"))
            return found and found[0]

        assert outcome(reader, "abc1") == "abc|3|1"
        assert outcome(reader, "abc") == "abc|3|"
        assert outcome(reader, "1") == "None|0|1"
        assert outcome(reader, " ") == "None|0| "


class TestReadTo:
    def test_over_the_mark(self) -> None:
        assert outcome(lambda feed: read_to(feed, "--"), "a-b--c") == "a-b|5|c"

    def test_no_mark(self) -> None:
        assert outcome(lambda feed: read_to(feed, "--"), "a-b-") == "None|0|a-b-"


def test_space() -> None:
    assert outcome(skip_space, " \n a") == "None|3|a"
    assert outcome(skip_space, " \n") == "None|2|"
