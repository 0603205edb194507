"""Text to tokens: control tokens from the template only, one BOS, pieces asked for once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine import llama
from server.engine.batch import Tokens
from server.engine.llama import backend
from server.engine.vocabulary import Vocabulary
from server.engine_config import EngineConfig
from server.ipc import Text

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<filename>")


@pytest.fixture(scope="module")
def vocabulary(model_path: Path) -> Iterator[Vocabulary]:
    """The real model's."""
    log = llama.backend_init()
    with llama.Model(str(model_path), EngineConfig(), 0, log, lambda _: None) as model:
        yield Vocabulary(model.vocabulary)
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


def detokenize(vocabulary: Vocabulary, tokens: Tokens) -> bytes:
    """The bytes of tokens, control tokens by their names."""
    names = {id: text.encode() for text, id in vocabulary.special.items()}
    return b"".join(names.get(t, vocabulary.piece(t)) for t in tokens.tolist())


PIECES = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(
            st.sampled_from(
                (*SPECIAL, "user\n", "Hi ", "<|im_", "end|>", "naïve 漢👍", " ", "\x00")
            )
            # Its tokenizer has no tokens for some of the other bytes.
            | st.text(
                st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs", "Cc"]), max_size=5
            ),
            max_size=4,
        ).map("".join),
    ),
    max_size=6,
)


@given(pieces=PIECES)
def test_control_tokens_come_from_the_template_only(
    vocabulary: Vocabulary, pieces: list[tuple[bool, str]]
) -> None:
    text, ranges = "", list[tuple[int, int]]()
    for literal, piece in pieces:
        if literal and piece:
            ranges.append((len(text), len(text) + len(piece)))
        text += piece
    tokens = vocabulary.tokenize(Text(text, tuple(ranges)))

    # Nothing is lost or added.
    assert detokenize(vocabulary, tokens) == text.encode(errors="replace")
    # The control tokens are those that stand, whole, outside of the ranges.
    masked = list(text)
    for begin, end in ranges:
        masked[begin:end] = "\0" * (end - begin)
    outside = "".join(masked)
    wanted: list[int] = []
    at = 0
    while at < len(outside):
        name = next((s for s in vocabulary.special if outside.startswith(s, at)), None)
        if name is None:
            at += 1
        else:
            wanted.append(vocabulary.special[name])
            at += len(name)
    controls = set(vocabulary.special.values())
    assert [t for t in tokens.tolist() if t in controls] == wanted


@pytest.mark.parametrize("special", SPECIAL)
def test_special_text_in_a_literal_range_is_text(vocabulary: Vocabulary, special: str) -> None:
    id = vocabulary.special[special]
    text = f"<|im_start|>{special}<|im_end|>"
    begin = len("<|im_start|>")
    plain = vocabulary.tokenize(Text(text)).tolist()
    assert plain == [vocabulary.special["<|im_start|>"], id, vocabulary.special["<|im_end|>"]]
    guarded = vocabulary.tokenize(Text(text, ((begin, begin + len(special)),))).tolist()
    assert guarded[0] == plain[0] and guarded[-1] == plain[-1]
    assert len(guarded) > 3
    assert not {id} & set(guarded[1:-1])


@pytest.mark.parametrize("cut", [0, 3, 8, 10])
def test_a_control_token_half_from_a_client_is_text(vocabulary: Vocabulary, cut: int) -> None:
    """Neither half may complete the other."""
    name = "<|im_end|>"
    n = len(name)
    for literal in ((0, cut), (cut, n)):
        if literal[0] < literal[1]:
            tokens = vocabulary.tokenize(Text(name, (literal,)))
            assert vocabulary.special[name] not in tokens
            assert detokenize(vocabulary, tokens) == name.encode()


def test_with_and_without_ranges_agree(vocabulary: Vocabulary) -> None:
    text = "<|im_start|>user\nTell me  of 漢字.<|im_end|>\n<|im_start|>assistant\n"
    begin = text.index("Tell")
    guarded = vocabulary.tokenize(Text(text, ((begin, text.index(".") + 1),)))
    assert guarded.tolist() == vocabulary.tokenize(Text(text)).tolist()


def test_what_the_real_vocabulary_says(vocabulary: Vocabulary) -> None:
    assert (vocabulary.bos, vocabulary.eos) == ("<|im_start|>", "<|im_end|>")
    assert set(SPECIAL) <= set(vocabulary.special)
    assert vocabulary.special["<|im_end|>"] in vocabulary.end_set
    assert vocabulary.ends.tolist() == sorted(vocabulary.end_set)
    assert "Hi" not in vocabulary.special
    assert vocabulary.piece(vocabulary.special["<|im_end|>"]) == b""


def test_every_piece_is_one_of_its_tokens(vocabulary: Vocabulary) -> None:
    text = "The quick brown fox: 1,234 naïve 漢字 👍\n"
    tokens = vocabulary.tokenize(Text(text)).tolist()
    assert b"".join(vocabulary.piece(t) for t in tokens) == text.encode()


NAMES = {60: "<s>", 61: "</s>", 62: ""}


class Made:
    """A tokenizer of our own: a token for each character; 60 `<s>`, 61 `</s>`, 62 without text."""

    n_tokens = 63
    eos = 61
    pad = sep = -1
    adds_eos = adds_sep = False
    fim: tuple[int, int, int] | None = None
    pointer: Any = None

    def __init__(self, bos: int = 60, adds_bos: bool = True):
        self.bos = bos
        self.adds_bos = adds_bos
        self.asked: list[int] = []

    def is_end(self, token: int) -> bool:
        return token == 61

    def is_control(self, token: int) -> bool:
        return token >= 60

    def text(self, token: int) -> str:
        return "" if token < 0 else NAMES.get(token, chr(97 + token))

    def piece(self, token: int, special: bool = False) -> bytes:
        if special:
            return self.text(token).encode()
        self.asked.append(token)
        return b"" if token >= 60 else self.text(token).encode()

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> Tokens:
        bos = [self.bos] if add_special and self.adds_bos else []
        if parse_special:
            text = text.replace("<s>", chr(97 + 60))
        return np.array(bos + [ord(c) - 97 for c in text], np.int32)


@pytest.mark.parametrize(
    ("adds_bos", "text", "literal", "tokens"),
    [
        (True, "ab", (), [60, 0, 1]),
        (True, "<s>ab", (), [60, 0, 1]),
        (True, "<s><s>ab", (), [60, 60, 0, 1]),
        (True, "ab", ((0, 1),), [60, 0, 1]),
        (True, "<s>ab", ((3, 4),), [60, 0, 1]),
        (True, "", (), [60]),
        (True, "<s>", (), [60]),
        (False, "<s>ab", (), [60, 0, 1]),
        (False, "<s>ab", ((3, 4),), [60, 0, 1]),
        (False, "<s><s>ab", ((6, 7),), [60, 60, 0, 1]),
        (False, "ab", ((0, 2),), [0, 1]),
        (False, "", (), []),
    ],
)
def test_one_bos(
    adds_bos: bool, text: str, literal: tuple[tuple[int, int], ...], tokens: list[int]
) -> None:
    vocabulary = Vocabulary(Made(adds_bos=adds_bos))
    assert vocabulary.tokenize(Text(text, literal)).tolist() == tokens


def test_a_literal_bos_is_not_the_bos() -> None:
    tokens = Vocabulary(Made()).tokenize(Text("<s>a", ((0, 4),))).tolist()
    assert tokens == [60, *(ord(c) - 97 for c in "<s>a")]


def test_a_vocabulary_without_bos() -> None:
    vocabulary = Vocabulary(Made(bos=-1, adds_bos=False))
    assert vocabulary.bos == ""
    assert vocabulary.tokenize(Text("ab", ((0, 1),))).tolist() == [0, 1]


def test_a_control_token_without_text_is_no_special_text() -> None:
    assert Vocabulary(Made()).special == {"<s>": 60, "</s>": 61}


def test_a_vocabulary_without_control_tokens() -> None:
    class Plain(Made):
        def is_control(self, token: int) -> bool:
            return token < 0

    vocabulary = Vocabulary(Plain(adds_bos=False))
    assert vocabulary.special == {}
    assert vocabulary.tokenize(Text("ab", ((0, 1),))).tolist() == [0, 1]


def test_pieces_are_asked_for_once() -> None:
    raw = Made()
    vocabulary = Vocabulary(raw)
    assert [vocabulary.piece(t) for t in (3, 3, 61, 61, 3)] == [b"d", b"d", b"", b"", b"d"]
    assert raw.asked == [3, 61]
