"""Writers of TGI's answers, in events or whole."""

import math
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import NamedTuple, assert_never

from server.api.answers import AnswerEvent, Echoed, End, EndReason, Piece, Tokens
from server.api.openai.logprobs import mean_logprob
from server.api.tgi.wire import (
    BestOfSequence,
    Details,
    FinishReason,
    GenerateResponse,
    Spelling,
    StreamDetails,
    StreamResponse,
    prefill,
)
from server.api.tgi.wire import Sequence as TokenSequence
from server.ipc import TokenScore


class Asked(NamedTuple):
    """What of a request its answer depends on."""

    prompt: str
    """What a full text begins with: the prompt or nothing."""
    stop: tuple[str, ...]
    seeds: Sequence[int | None]
    """Of each candidate; None: nothing is drawn."""
    details: bool
    names: Mapping[int, str]
    """Control tokens."""

    def reason(self, reason: EndReason, text: str) -> FinishReason:
        """Why an answer ended. An answer has no stop string but at its end."""
        if reason == "length":
            return "length"
        return "stop_sequence" if text.endswith(self.stop) else "eos_token"


class Events:
    """Writes an answer as one event for each token. The last one is written when all is known."""

    def __init__(self, asked: Asked):
        self._asked = asked
        self._spelling = Spelling(asked.names)
        self._index = 0
        self._text = ""
        self._held: tuple[TokenScore, ...] = ()
        """Of the tokens that end the answer."""
        self._reason: EndReason = "stop"

    def write(self, event: AnswerEvent) -> bytes:
        match event:
            case Piece(_, text, _, scores, last):
                self._text += text
                if last:
                    self._held = scores
                    return b""
                return self._events(scores)
            case End(_, reason, scores):
                self._reason = reason
                *others, last = (*self._held, *scores)
                self._held = (last,)
                return self._events(others)
            case Tokens():
                return self._last(event)
            case Echoed():
                return b""
            case _:
                assert_never(event)

    def _events(self, scores: Sequence[TokenScore]) -> bytes:
        return b"".join(map(self._event, scores))

    def _event(self, score: TokenScore) -> bytes:
        self._index += 1
        token = StreamResponse(
            index=self._index,
            token=self._spelling.token(score),
            top_tokens=self._spelling.top(score),
            generated_text=None,
            details=None,
        )
        return _sse(token)

    def _last(self, tokens: Tokens) -> bytes:
        (score,) = self._held
        details = StreamDetails(
            finish_reason=self._asked.reason(self._reason, self._text),
            generated_tokens=tokens.completion,
            seed=self._asked.seeds[0],
            input_length=tokens.prompt,
        )
        token = StreamResponse(
            index=self._index + 1,
            token=self._spelling.last(score, self._text),
            top_tokens=self._spelling.top(score),
            generated_text=self._asked.prompt + self._text,
            details=details if self._asked.details else None,
        )
        return _sse(token)


def _sse(event: StreamResponse) -> bytes:
    return f"data:{event.model_dump_json()}\n\n".encode()


class Candidate:
    """One answer while it is put together."""

    def __init__(self) -> None:
        self.text = ""
        self.prompt: tuple[TokenScore, ...] = ()
        self.scores: list[TokenScore] = []
        self.reason: EndReason = "stop"

    def take(self, text: str, scores: Sequence[TokenScore]) -> None:
        self.text += text
        self.scores += scores

    def sequence(self, asked: Asked, seed: int | None) -> TokenSequence:
        """The answer token by token."""
        spelling = Spelling(asked.names)
        *others, last = self.scores
        tokens = [*map(spelling.token, others), spelling.last(last, self.text)]
        top = [spelling.top(score) for score in self.scores]
        return TokenSequence(
            finish_reason=asked.reason(self.reason, self.text),
            generated_tokens=len(tokens),
            seed=seed,
            prefill=[*map(prefill, self.prompt)],
            tokens=tokens,
            top_tokens=top if any(top) else [],
        )


class Whole:
    """Writes an answer as one object, or as a list of one: the best of all candidates."""

    def __init__(self, asked: Asked, listed: bool, arrived: float):
        self._asked = asked
        self._listed = listed
        self._candidates = [Candidate() for _ in asked.seeds]
        self._arrived = arrived
        self._validated = perf_counter()
        self.headers: Mapping[str, str] = {}
        """Of the response, once it is written."""

    def write(self, event: AnswerEvent) -> bytes:
        match event:
            case Piece(index, text, _, scores):
                self._candidates[index].take(text, scores)
            case Echoed(index, tokens):
                self._candidates[index].prompt = tokens
            case End(index, reason, scores):
                self._candidates[index].take("", scores)
                self._candidates[index].reason = reason
            case Tokens():
                return self._whole(event)
            case _:
                assert_never(event)
        return b""

    def _whole(self, tokens: Tokens) -> bytes:
        candidates = self._candidates
        best = max(range(len(candidates)), key=lambda i: mean_logprob(candidates[i].scores))
        told = candidates[best]
        n_generated = tokens.completion if len(candidates) == 1 else len(told.scores)
        self.headers = self._measured(tokens, n_generated)
        answer = GenerateResponse(
            generated_text=self._asked.prompt + told.text,
            details=self._details(best) if self._asked.details else None,
        ).model_dump_json()
        return f"[{answer}]".encode() if self._listed else answer.encode()

    def _details(self, best: int) -> Details:
        sequences = [
            candidate.sequence(self._asked, seed)
            for candidate, seed in zip(self._candidates, self._asked.seeds, strict=True)
        ]
        others = [
            BestOfSequence(
                generated_text=self._asked.prompt + self._candidates[i].text, **dict(sequence)
            )
            for i, sequence in enumerate(sequences)
            if i != best
        ]
        return Details(best_of_sequences=others or None, **dict(sequences[best]))

    def _measured(self, tokens: Tokens, n_generated: int) -> Mapping[str, str]:
        total = perf_counter() - self._arrived
        validation = self._validated - self._arrived
        inference = max(0.0, total - validation - tokens.queued_s)
        return {
            "x-compute-time": f"{total:.6f}",
            "x-total-time": _ms(total),
            "x-validation-time": _ms(validation),
            "x-queue-time": _ms(tokens.queued_s),
            "x-inference-time": _ms(inference),
            "x-time-per-token": _ms(inference / n_generated),
            "x-prompt-tokens": str(tokens.prompt),
            "x-generated-tokens": str(n_generated),
        }


def _ms(seconds: float) -> str:
    return str(math.floor(seconds * 1000))
