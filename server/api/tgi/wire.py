"""TGI's answers on the wire."""

from codecs import getincrementaldecoder
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from server.api.openai.logprobs import LEAST
from server.api.openapi import Sent, is_none
from server.ipc import ModelInfo, TokenScore

FinishReason = Literal["length", "eos_token", "stop_sequence"]


def _is_empty(value: list[object]) -> bool:
    return not value


class PrefillToken(Sent):
    """A token of the prompt. The first one cannot be predicted."""

    id: int
    text: str
    logprob: float | None


class GeneratedToken(Sent):
    """A token of the answer; the texts of those that are not special make up the answer."""

    id: int
    text: str
    logprob: float
    special: bool


TopTokens = list[GeneratedToken]


class Sequence(Sent):
    """One answer token by token. No seed: nothing was drawn."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[GeneratedToken]
    top_tokens: list[TopTokens] = Field(default=[], exclude_if=_is_empty)


class BestOfSequence(Sequence):
    """One of the candidates that were not the best."""

    generated_text: str


class Details(Sequence):
    """How the answer came to be."""

    best_of_sequences: list[BestOfSequence] | None = Field(default=None, exclude_if=is_none)


class GenerateResponse(Sent):
    """A whole answer."""

    generated_text: str
    details: Details | None = Field(default=None, exclude_if=is_none)


class StreamDetails(Sent):
    """How a streamed answer came to be."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamResponse(Sent):
    """One token of a stream; the last one brings the whole text."""

    index: int
    token: GeneratedToken
    top_tokens: TopTokens = Field(default=[], exclude_if=_is_empty)
    generated_text: str | None
    details: StreamDetails | None


class Spelling:
    """Writes the tokens of one answer. A character is in the token that completes it."""

    def __init__(self, names: Mapping[int, str]):
        self._names = names
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._n_written = 0

    def token(self, score: TokenScore) -> GeneratedToken:
        """The next token."""
        text = self._decoder.decode(score.piece)
        self._n_written += len(text)
        return self._named(score.id, text, score.piece, score.logprob)

    def last(self, score: TokenScore, whole: str) -> GeneratedToken:
        """The last token, with what the ones before have left of the `whole` text."""
        return self._named(score.id, whole[self._n_written :], score.piece, score.logprob)

    def top(self, score: TokenScore) -> TopTokens:
        """The best tokens in its place, best first."""
        return [
            self._named(id, piece.decode(errors="replace"), piece, logprob)
            for id, piece, logprob in score.top
        ]

    def _named(self, id: int, text: str, piece: bytes, logprob: float | None) -> GeneratedToken:
        special = id in self._names or not piece
        return GeneratedToken(
            id=id,
            text=text or self._names.get(id, ""),
            logprob=LEAST if logprob is None else max(logprob, LEAST),
            special=special,
        )


def special_names(info: ModelInfo) -> Mapping[int, str]:
    """The texts of control tokens, which add none to an answer."""
    return dict(zip(info.special_ids, info.special, strict=False))


def prefill(score: TokenScore) -> PrefillToken:
    """A token of a prompt."""
    text = score.piece.decode(errors="replace")
    return PrefillToken(id=score.id, text=text, logprob=score.logprob)
