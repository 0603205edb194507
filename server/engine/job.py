"""Questions beside the running requests: jobs for the embedder, and what a look-up answers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from server.engine.batch import Tokens
from server.engine.vocabulary import Vocabulary
from server.errors import ContextLengthExceeded, InvalidRequest
from server.ipc import (
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    Rank,
    Ranked,
    Reply,
    Text,
    Tokenize,
    Tokenized,
)


@dataclass(frozen=True)
class Limits:
    """What a model offers. `n_ctx`: tokens of one text; `rerank_template`: as the GGUF has it."""

    embeds: bool
    ranks: bool
    n_ctx: int
    rerank_template: str | None = None


class Job:
    """One question about texts. Made on the receiving thread, then touched by the embedder only."""

    def __init__(self, id: int, question: Embed | Rank, vocabulary: Vocabulary, limits: Limits):
        """Raises InvalidRequest or ContextLengthExceeded."""
        self.id = id
        self.ranks = isinstance(question, Rank)
        if isinstance(question, Rank):
            self.texts = list(_read_pairs(question, vocabulary, limits))
        else:
            self.texts = list(_read_inputs(question, vocabulary, limits))
        self.n_begun = 0
        """Texts that have a slot, or had one."""
        self.results: dict[int, bytes | float] = {}

    @property
    def next(self) -> Tokens:
        """The first text that has had no slot."""
        return self.texts[self.n_begun]

    @property
    def reply(self) -> Reply:
        """The answer, once all results are there."""
        results = [self.results[index] for index in range(len(self.texts))]
        n_tokens = tuple(len(text) for text in self.texts)
        if self.ranks:
            return Ranked(tuple(r for r in results if isinstance(r, float)), n_tokens)
        return Embedded(tuple(r for r in results if isinstance(r, bytes)), n_tokens)


def _read_inputs(question: Embed, vocabulary: Vocabulary, limits: Limits) -> Iterator[Tokens]:
    if limits.ranks:
        raise InvalidRequest(
            "this model ranks documents and has no embeddings, unless engine.pooling is set",
            "model",
        )
    if not limits.embeds:
        raise InvalidRequest("this model has no embeddings", "model")
    param = question.input_param
    for number, item in enumerate(question.inputs):
        path = f"{param}.{number}" if len(question.inputs) > 1 else param
        if isinstance(item, str):
            # A client's text is text: nothing in it is a control token.
            tokens = vocabulary.raw.tokenize(item, add_special=True, parse_special=False)
        else:
            vocabulary.check(path, item)
            tokens = np.array(item, np.int32)
        yield _fitting(tokens, path, limits.n_ctx)


def _read_pairs(question: Rank, vocabulary: Vocabulary, limits: Limits) -> Iterator[Tokens]:
    if not limits.ranks:
        raise InvalidRequest("this model does not rank documents, it has no head for it", "model")
    template, query = limits.rerank_template, question.query
    for number, document in enumerate(question.documents):
        if template is None:
            tokens = _by_separators(vocabulary, query, document)
        else:
            tokens = vocabulary.tokenize(_by_template(template, query, document))
        yield _fitting(tokens, f"documents.{number}", limits.n_ctx)


def _by_template(template: str, query: str, document: str) -> Text:
    """The pair in the words of the template, whose control tokens are the only ones."""
    text, literal = "", list[tuple[int, int]]()
    for part in re.split(r"(\{query\}|\{document\})", template):
        match part:
            case "{query}" | "{document}":
                found = query if part == "{query}" else document
                literal.append((len(text), len(text) + len(found)))
                text += found
            case _:
                text += part
    return Text(text, tuple(literal))


def _by_separators(vocabulary: Vocabulary, query: str, document: str) -> Tokens:
    """`<s>query</s></s>document</s>`, or with what the vocabulary has of these."""
    raw = vocabulary.raw
    first, second = (
        raw.tokenize(text, add_special=False, parse_special=False) for text in (query, document)
    )
    begin = [raw.bos] if raw.adds_bos else []
    sep = [raw.sep] if raw.adds_sep else []
    eos = [raw.eos] if raw.adds_eos else []
    return np.concatenate([begin, first, eos, sep, second, eos or sep]).astype(np.int32)


def _fitting(tokens: Tokens, path: str, n_ctx: int) -> Tokens:
    if not len(tokens):
        raise InvalidRequest(f"{path}: an empty text has no tokens", path)
    if len(tokens) > n_ctx:
        raise ContextLengthExceeded(
            f"{path}: {len(tokens):,} tokens, this model takes at most {n_ctx:,}", path
        )
    return tokens


def look_up(question: Tokenize | Detokenize, vocabulary: Vocabulary) -> Tokenized | Detokenized:
    """Answer from the vocabulary alone. Raises InvalidRequest."""
    if isinstance(question, Detokenize):
        vocabulary.check("tokens", question.tokens)
        text = b"".join(vocabulary.spell(question.tokens)).decode(errors="replace")
        return Detokenized(text)
    if question.add_special and question.parse_special:
        tokens = vocabulary.tokenize(Text(question.text, question.literal))
    else:
        tokens = vocabulary.raw.tokenize(
            question.text, question.add_special, question.parse_special
        )
    ids = tuple(tokens.tolist())
    return Tokenized(ids, vocabulary.spell(ids))
