"""Scores in both forms: texts, bytes, offsets."""

import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.chat_completion import ChoiceLogprobs
from pytest import approx

from server.api.openai.logprobs import TextScores, chat_logprobs, mean_logprob, token_text
from server.ipc import TokenScore


def scores(*pieces: bytes) -> list[TokenScore]:
    return [TokenScore(i, piece, -0.5, ()) for i, piece in enumerate(pieces)]


def test_parts_of_characters_are_spelled() -> None:
    assert token_text(" é".encode()) == " é"
    assert token_text(b"\xe2\x9c") == r"bytes:\xe2\x9c"
    assert token_text(b"a\x93") == r"bytes:\x61\x93"


def test_the_chat_form() -> None:
    top = ((7, b"a", -0.25), (8, b"\xe2", -1.5))
    told = chat_logprobs([TokenScore(8, b"\xe2", -1.5, top), TokenScore(2, b"", -0.1, top)])
    assert told == {
        "content": [
            {
                "token": r"bytes:\xe2",
                "logprob": -1.5,
                "bytes": [0xE2],
                "top_logprobs": [
                    {"token": "a", "logprob": -0.25, "bytes": [97]},
                    {"token": r"bytes:\xe2", "logprob": -1.5, "bytes": [0xE2]},
                ],
            }
        ],
        "refusal": None,
    }
    ChoiceLogprobs.model_validate(told, strict=True)


def test_what_is_impossible_is_still_json() -> None:
    impossible = TokenScore(1, b"a", float("-inf"), ((1, b"a", float("-inf")),))
    told = json.loads(json.dumps(chat_logprobs([impossible]), allow_nan=False))
    assert told["content"][0]["logprob"] == -9999.0
    assert told["content"][0]["top_logprobs"][0]["logprob"] == -9999.0
    text = TextScores().write([impossible])
    assert (text.token_logprobs, text.top_logprobs) == ([-9999.0], [{"a": -9999.0}])


def test_the_text_form() -> None:
    first = TokenScore(5, b"Hi", None)
    second = TokenScore(6, b" you", -0.75, ((9, b" me", -0.25), (10, b" us", -0.5)))
    end = TokenScore(3, b"", -9.0, ((2, b"", -0.125), (3, b"", -9.0)))
    told = TextScores().write([first, second, end])
    assert told.tokens == ["Hi", " you", ""]
    assert told.token_logprobs == [None, -0.75, -9.0]
    # The token itself is always told, and of two of one text the likelier.
    assert told.top_logprobs == [None, {" me": -0.25, " us": -0.5, " you": -0.75}, {"": -0.125}]
    assert told.text_offset == [0, 2, 6]


@given(st.text(max_size=12), st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_offsets_count_characters(text: str, cuts: Sequence[int]) -> None:
    data = text.encode(errors="surrogatepass")
    data = data.decode(errors="ignore").encode()
    pieces: list[bytes] = []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    pieces.append(data)
    written = TextScores()
    offsets = [written.write(scores(piece)).text_offset[0] for piece in pieces]
    assert offsets == TextScores().write(scores(*pieces)).text_offset
    whole = b"".join(pieces).decode()
    before = b""
    for piece, offset in zip(pieces, offsets, strict=True):
        assert whole[:offset].encode() == before[: len(whole[:offset].encode())]
        assert offset == len(before.decode(errors="ignore"))
        before += piece


def test_an_echo_may_be_shorter_than_its_tokens() -> None:
    written = TextScores()
    prompt = scores(b"<s>", b" He", b"llo")
    written.begin("Hello", prompt)
    assert written.write(prompt).text_offset == [0, 0, 2]
    assert written.write(scores(b" world")).text_offset == [5]


def test_an_echo_that_is_spelled_otherwise() -> None:
    written = TextScores()
    written.begin("Hello", scores(b"Hallo"))
    assert written.write(scores(b"Hallo", b"!")).text_offset == [0, 5]


def test_candidates_are_ranked_by_the_mean() -> None:
    assert mean_logprob([TokenScore(1, b"a", -1.0), TokenScore(1, b"a", -2.0)]) == approx(-1.5)
    assert mean_logprob([TokenScore(1, b"a", None), TokenScore(1, b"a", -2.0)]) == approx(-2.0)
    assert mean_logprob([]) == 0.0
