"""Questions: what their texts are as tokens, what is refused, and what a look-up answers."""

import re

import numpy as np
import pytest

from server.engine.batch import Tokens
from server.engine.job import Job, Limits, look_up
from server.engine.vocabulary import Vocabulary
from server.errors import ContextLengthExceeded, InvalidRequest
from server.ipc import Detokenize, Detokenized, Embed, Embedded, Rank, Ranked, Tokenize, Tokenized
from tests.engine.fake import FakeTokenizer

BOS, EOS, SEP = 60, 61, 62
CONTROL = {BOS: "<s>", EOS: "</s>", SEP: "<sep>"}


class Marking(FakeTokenizer):
    """Adds BOS and EOS where asked to, and knows `<s>`, `</s>` and `<sep>`."""

    bos, eos, sep = BOS, EOS, SEP
    adds_bos = adds_eos = adds_sep = True

    def is_control(self, token: int) -> bool:
        return token in CONTROL

    def text(self, token: int) -> str:
        return CONTROL.get(token) or super().text(token)

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> Tokens:
        ids = {name: id for id, name in CONTROL.items()}
        inner: list[int] = []
        for part in re.split("(<s>|</s>|<sep>)", text):
            known = part in ids and parse_special
            inner += [ids[part]] if known else [ord(c) - 32 for c in part]
        return np.array([BOS, *inner, EOS] if add_special else inner, np.int32)


EMBEDS = Limits(embeds=True, ranks=False, n_ctx=16)
RANKS = Limits(embeds=False, ranks=True, n_ctx=16)
VOCABULARY = Vocabulary(Marking())


def tokens(text: str) -> list[int]:
    return [ord(c) - 32 for c in text]


def embed(*inputs: str | tuple[int, ...], limits: Limits = EMBEDS) -> list[list[int]]:
    job = Job(1, Embed(inputs), VOCABULARY, limits)
    return [text.tolist() for text in job.texts]


def rank(query: str, *documents: str, limits: Limits = RANKS) -> list[list[int]]:
    job = Job(1, Rank(query, documents), VOCABULARY, limits)
    return [text.tolist() for text in job.texts]


def test_texts_and_ids() -> None:
    assert embed("AB") == [[BOS, *tokens("AB"), EOS]]
    assert embed((1, 2, 63)) == [[1, 2, 63]], "ids are taken as they are"


def test_a_clients_control_tokens_are_text() -> None:
    assert embed("A</s>") == [[BOS, *tokens("A</s>"), EOS]]
    assert rank("</s>", "<s>") == [[BOS, *tokens("</s>"), EOS, SEP, *tokens("<s>"), EOS]]


@pytest.mark.parametrize(
    ("inputs", "message", "param"),
    [
        (("", "A"), "", None),
        (((1, 64),), "input: token 64 is not in the vocabulary of 64", "input"),
        ((("A"), (100_257,)), "input.1: token 100257 is not in the vocabulary of 64", "input.1"),
        (("A", (-1,)), "input.1: token -1", "input.1"),
        (("A" * 15,), "input: 17 tokens, this model takes at most 16", "input"),
        (("A", "A" * 15), "input.1: 17 tokens, this model takes at most 16", "input.1"),
        (("A", ()), "input.1: an empty text has no tokens", "input.1"),
    ],
)
def test_bad_inputs(inputs: tuple[str | tuple[int, ...], ...], message: str, param: str) -> None:
    if not message:
        assert embed(*inputs)[0] == [BOS, EOS], "not empty for this model"
        return
    with pytest.raises(InvalidRequest) as caught:
        embed(*inputs)
    assert caught.value.message.startswith(message)
    assert caught.value.param == param
    assert isinstance(caught.value, ContextLengthExceeded) == ("at most" in message)


def test_pairs_with_what_the_vocabulary_has() -> None:
    class Bert(Marking):
        adds_eos = False

    class Plain(Marking):
        adds_bos = adds_eos = adds_sep = False

    question = Rank("A", ("B",))
    for tokenizer, pair in (
        (Marking(), [BOS, *tokens("A"), EOS, SEP, *tokens("B"), EOS]),
        (Bert(), [BOS, *tokens("A"), SEP, *tokens("B"), SEP]),
        (Plain(), tokens("AB")),
    ):
        job = Job(1, question, Vocabulary(tokenizer), RANKS)
        assert [text.tolist() for text in job.texts] == [pair]


def test_pairs_by_the_models_template() -> None:
    limits = Limits(False, True, 64, "<sep>Q:{query} D:{document}<sep>")
    # What comes with the texts is neither a place nor a control token.
    assert rank("{document}", "<sep>", "E", limits=limits) == [
        [BOS, SEP, *tokens("Q:{document} D:<sep>"), SEP],
        [BOS, SEP, *tokens("Q:{document} D:E"), SEP],
    ]


def test_a_pair_that_is_too_long() -> None:
    with pytest.raises(ContextLengthExceeded, match="23 tokens, this model takes at most 16") as e:
        rank("A" * 10, "B", "C" * 9)
    assert e.value.param == "documents.1"


def test_what_the_model_is_not_for() -> None:
    with pytest.raises(InvalidRequest, match="ranks documents and has no embeddings") as caught:
        embed("A", limits=RANKS)
    assert caught.value.param == "model"
    with pytest.raises(InvalidRequest, match="this model has no embeddings"):
        embed("A", limits=Limits(False, False, 16))
    with pytest.raises(InvalidRequest, match="does not rank documents"):
        rank("A", "B", limits=EMBEDS)


def test_replies_are_in_order() -> None:
    job = Job(1, Embed(("AB", "C")), VOCABULARY, EMBEDS)
    job.results = {1: b"second", 0: b"first"}
    assert job.reply == Embedded((b"first", b"second"), (4, 3))
    job = Job(1, Rank("A", ("B", "CD")), VOCABULARY, RANKS)
    job.results = {1: 0.25, 0: 0.5}
    assert job.reply == Ranked((0.5, 0.25), (6, 7))


def test_look_ups() -> None:
    def look(question: Tokenize) -> list[int]:
        found = look_up(question, VOCABULARY)
        assert isinstance(found, Tokenized)
        assert len(found.pieces) == len(found.tokens)
        return [*found.tokens]

    assert look(Tokenize("A</s>")) == [BOS, 33, EOS, EOS]
    assert look(Tokenize("A</s>", add_special=False)) == [33, EOS]
    assert look(Tokenize("A</s>", parse_special=False)) == [BOS, *tokens("A</s>"), EOS]
    assert look_up(Detokenize((33, 34)), VOCABULARY) == Detokenized("AB")
    with pytest.raises(InvalidRequest, match="token 64"):
        look_up(Detokenize((64,)), VOCABULARY)
