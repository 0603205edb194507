"""Every split of a text into tokens gives the same answer, cut at its first stop string."""

from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.engine.detokenizer import Detokenizer

SAMPLES: tuple[bytes, ...] = (
    b"Hello, world",
    "naïve 漢字 text".encode(),
    "👩‍👩‍👧 family 🇩🇪".encode(),
    b"half \xe2\x82",
    b"bad \xff\xc3( \xf0\x9f bytes\x80",
    b"<|im_end|> <|im_<|im_end|>",
    "aaab aab ab €€€".encode(),
    b"",
)
STOPS = (
    "b",
    "ab",
    "aab",
    "<|im_end|>",
    "d",
    "字",
    "漢字 t",
    "👩",
    "\u200d",
    "�",
    "(",
    "or",
    "lo, w",
)


def run(pieces: Iterable[bytes], stop: tuple[str, ...]) -> tuple[list[str], bool]:
    """The texts sent, as the engine sends them: nothing more once a stop string has come."""
    detokenizer = Detokenizer(stop)
    sent: list[str] = []
    for piece in pieces:
        sent.append(detokenizer.push(piece))
        if detokenizer.stopped:
            return sent, True
    sent.append(detokenizer.finish())
    return sent, detokenizer.stopped


def expected(data: bytes, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The whole text cut at the stop string that begins first."""
    text = data.decode(errors="replace")
    found = [text.index(s) for s in stop if s in text]
    return (text[: min(found)], True) if found else (text, False)


def splits(data: bytes) -> Iterator[list[bytes]]:
    """All ways to cut `data` into pieces."""
    inner = range(1, len(data))
    for n in range(len(data)):
        for cuts in combinations(inner, n):
            edges = (0, *cuts, len(data))
            yield [data[a:b] for a, b in pairwise(edges)]


@st.composite
def cut_up(draw: st.DrawFn) -> list[bytes]:
    data = draw(st.sampled_from(SAMPLES) | st.text(max_size=24).map(str.encode) | st.binary())
    cuts = draw(st.lists(st.integers(0, len(data))))
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


ANY_STOPS = st.lists(st.sampled_from(STOPS) | st.text("ab<|€漢", min_size=1), max_size=4).map(tuple)


@given(pieces=cut_up(), stop=ANY_STOPS)
@example(pieces=[b"ab", b"c"], stop=("abc", "b"))
@example(pieces=[b"ab", b"d"], stop=("abc", "b"))
@example(pieces=[b"\xe2\x82"], stop=("�",))
@example(pieces=[b"a\xe2\x82"], stop=("a�",))
def test_any_split_is_cut_at_the_first_stop(pieces: list[bytes], stop: tuple[str, ...]) -> None:
    sent, stopped = run(pieces, stop)
    assert ("".join(sent), stopped) == expected(b"".join(pieces), stop)


@pytest.mark.parametrize(
    ("data", "stop"),
    [
        (b"xabcabd", ("abd",)),
        (b"xabcabd", ("abcd", "bca", "d")),
        (b"aaaab", ("aab", "aaac")),
        (b"abcx", ("abcd", "b")),
        (b"abcd", ("abcd", "b")),
        ("é漢👍".encode(), ("👍",)),
        ("a€€b".encode(), ("€b", "€c")),
        (b"a\xe2\x82b\xff", ("b",)),
        (b"\xf0\x9f\x91a\xc3", ("�a�",)),
    ],
)
def test_all_splits(data: bytes, stop: tuple[str, ...]) -> None:
    wanted = expected(data, stop)
    n = 0
    for pieces in splits(data):
        sent, stopped = run(pieces, stop)
        assert ("".join(sent), stopped) == wanted, pieces
        n += 1
    assert n == 2 ** (len(data) - 1)


@given(pieces=cut_up())
def test_characters_are_sent_whole(pieces: list[bytes]) -> None:
    sent, _ = run(pieces, ())
    whole = b"".join(pieces).decode(errors="replace")
    for i, text in enumerate(sent):
        # Neither half of a surrogate pair nor a replacement that the whole text does not have.
        text.encode()
        assert whole.startswith("".join(sent[: i + 1]))
    assert "".join(sent) == whole


def test_what_cannot_be_part_of_a_stop_is_sent_at_once() -> None:
    detokenizer = Detokenizer(("END",))
    assert detokenizer.push(b"the E") == "the "
    assert detokenizer.push(b"N") == ""
    assert detokenizer.push(b"ERGY E") == "ENERGY "
    assert detokenizer.push(b"ND of") == ""
    assert detokenizer.stopped
    assert detokenizer.push(b"more") == ""
    assert detokenizer.finish() == ""


def test_a_character_waits_for_its_last_byte() -> None:
    detokenizer = Detokenizer()
    sent = [detokenizer.push(bytes([byte])) for byte in "a€👍".encode()]
    assert sent == ["a", "", "", "€", "", "", "", "👍"]


def test_finish_releases_what_was_held() -> None:
    detokenizer = Detokenizer(("stop",))
    assert detokenizer.push(b"do not sto") == "do not "
    assert detokenizer.finish() == "sto"
    assert not detokenizer.stopped


def test_an_earlier_stop_may_still_come() -> None:
    """`b` is there, but `abc` would begin before it: the cut must not depend on the split."""
    detokenizer = Detokenizer(("abc", "b"))
    assert detokenizer.push(b"xab") == "x"
    assert not detokenizer.stopped
    assert detokenizer.push(b"d") == "a"
    assert detokenizer.stopped


@given(pieces=cut_up(), stop=ANY_STOPS)
@example(pieces=[b"ab", b"c"], stop=("abc", "b"))
def test_a_stop_that_is_kept_ends_the_text(pieces: list[bytes], stop: tuple[str, ...]) -> None:
    cut, stopped = expected(b"".join(pieces), stop)
    detokenizer = Detokenizer(stop, keep_stop=True)
    text = ""
    for piece in pieces:
        text += detokenizer.push(piece)
        if detokenizer.stopped:
            break
    else:
        text += detokenizer.finish()
    assert detokenizer.stopped == stopped
    assert text.startswith(cut)
    assert text.removeprefix(cut) in (stop if stopped else ("",))
