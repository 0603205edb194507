"""Scores of tokens in the two forms that clients know."""

from codecs import getincrementaldecoder
from collections.abc import Sequence

from typing_extensions import TypedDict

from server.api.wire import Wire
from server.ipc import TokenScore

LEAST = -9999.0
"""For what the model holds impossible: JSON has no infinity, and OpenAI sends this."""

MAX_TOP = 20
"""How many of the best tokens may be asked for."""


class TopLogprob(TypedDict):
    """One of the best tokens in a place."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer, and the best in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """`logprobs` of a chat choice, whole or of one chunk."""

    content: list[TokenLogprob]
    refusal: None


class TextLogprobs(Wire):
    """`logprobs` of a completion, whole or of one chunk: one entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


def token_text(piece: bytes) -> str:
    r"""A token as JSON can have it: a part of a character is written as `bytes:\xe2\x9c`."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def chat_logprobs(scores: Sequence[TokenScore]) -> ChatLogprobs:
    """The scores of an answer's tokens but for the one that ended it, which has no text."""
    return {
        "content": [
            {
                **_top(score.piece, score.logprob),
                "top_logprobs": [_top(piece, logprob) for _, piece, logprob in score.top],
            }
            for score in scores
            if score.piece
        ],
        "refusal": None,
    }


def _top(piece: bytes, logprob: float | None) -> TopLogprob:
    return {"token": token_text(piece), "logprob": _finite(logprob), "bytes": list(piece)}


def _finite(logprob: float | None) -> float:
    return LEAST if logprob is None else max(logprob, LEAST)


class TextScores:
    """Writes the scores of one completion; offsets go on from one call to the next.

    An offset counts the characters of the returned text before a token. Tokens that share a
    character share its offset.
    """

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def begin(self, text: str, tokens: Sequence[TokenScore]) -> None:
        """`tokens` come next but show as `text`: what they have before it lies before offset 0."""
        spelled = b"".join(token.piece for token in tokens).decode(errors="replace")
        if spelled.endswith(text):
            self._offset = len(text) - len(spelled)

    def write(self, scores: Sequence[TokenScore]) -> TextLogprobs:
        """The next tokens. A prompt's first token has no logprob."""
        offsets: list[int] = []
        for score in scores:
            offsets.append(max(0, self._offset))
            self._offset += len(self._decoder.decode(score.piece))
        return TextLogprobs(
            tokens=[token_text(score.piece) for score in scores],
            token_logprobs=[
                None if score.logprob is None else _finite(score.logprob) for score in scores
            ],
            top_logprobs=[_best(score) for score in scores],
            text_offset=offsets,
        )


def _best(score: TokenScore) -> dict[str, float] | None:
    """The best tokens by their text, and the token itself; of equal texts the likelier counts."""
    if score.logprob is None:
        return None
    best: dict[str, float] = {}
    for _, piece, logprob in (*score.top, (score.id, score.piece, score.logprob)):
        best.setdefault(token_text(piece), _finite(logprob))
    return best


def mean_logprob(scores: Sequence[TokenScore]) -> float:
    """By which candidates are ranked."""
    known = [score.logprob for score in scores if score.logprob is not None]
    return sum(known) / len(known) if known else 0.0
