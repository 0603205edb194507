"""Completions on the wire, in chunks or whole."""

from collections.abc import Sequence
from typing import Literal, assert_never

from server.api.answers import AnswerEvent, Echoed, End, EndReason, Piece, Tokens
from server.api.openai.logprobs import TextLogprobs, TextScores, mean_logprob
from server.api.openai.schema import ChunkFrame, Head, Usage, encode
from server.api.openapi import Sent
from server.ipc import TokenScore


class CompletionChoice(Sent):
    """One whole choice."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: EndReason


class Completion(Sent):
    """The whole answer."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str


class TextDelta(Sent):
    """What is new of a choice; its reason to end comes last."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: EndReason | None


class CompletionChunk(Sent):
    """A part of a streamed answer. Usage is there only if asked for, and null but in the last."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextDelta]
    system_fingerprint: str


def _prompt_text(known: str | None, tokens: Sequence[TokenScore]) -> str:
    """The echo: what the client sent, or the text of the token ids that it sent."""
    if known is not None:
        return known
    return b"".join(token.piece for token in tokens).decode(errors="replace")


class CompletionChunks:
    """Writes the choices of one request as chunks, `n` for each of `prompts` (None: token ids)."""

    def __init__(
        self,
        head: Head,
        prompts: Sequence[str | None],
        n: int,
        logprobs: bool,
        include_usage: bool,
    ):
        self._prompts = prompts
        self._n = n
        self._frame = ChunkFrame("text_completion", head, include_usage)
        self._include_usage = include_usage
        self._scores = [TextScores() for _ in range(len(prompts) * n)] if logprobs else None

    def write(self, event: AnswerEvent) -> bytes:
        match event:
            case Piece(index, text, _, scores):
                return self._chunk(index, text, scores)
            case Echoed(index, tokens):
                text = _prompt_text(self._prompts[index // self._n], tokens)
                if self._scores:
                    self._scores[index].begin(text, tokens)
                return self._chunk(index, text, tokens)
            case End(index, reason, scores):
                return self._chunk(index, "", scores, f'"{reason}"')
            case Tokens():
                return self._frame.usage(event) if self._include_usage else b""
            case _:
                assert_never(event)

    def _chunk(
        self, index: int, text: str, scores: Sequence[TokenScore], reason: str = "null"
    ) -> bytes:
        logprobs = "null"
        if self._scores and scores:
            logprobs = self._scores[index].write(scores).model_dump_json()
        return self._frame.event(
            f'{{"text":{encode(text)},"index":{index},'
            f'"logprobs":{logprobs},"finish_reason":{reason}}}'
        )


class _Candidate:
    """A choice while it is put together."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.prompt: tuple[TokenScore, ...] = ()
        self.scores: list[TokenScore] = []
        self.reason: EndReason = "stop"
        self._echo = ""

    def take(self, text: str, scores: Sequence[TokenScore]) -> None:
        self._texts.append(text)
        self.scores += scores

    def echo(self, text: str, tokens: tuple[TokenScore, ...]) -> None:
        self._echo, self.prompt = text, tokens

    def choice(self, index: int, logprobs: bool) -> CompletionChoice:
        text = self._echo + "".join(self._texts)
        return CompletionChoice(
            text=text,
            index=index,
            logprobs=self._logprobs() if logprobs else None,
            finish_reason=self.reason,
        )

    def _logprobs(self) -> TextLogprobs:
        written = TextScores()
        if self.prompt:
            written.begin(self._echo, self.prompt)
        return written.write([*self.prompt, *self.scores])


class CompletionWhole:
    """Writes the choices of one request as one object: the best `n_told` of `n` for each prompt."""

    def __init__(
        self, head: Head, prompts: Sequence[str | None], n: int, logprobs: bool, n_told: int
    ):
        self._head = head
        self._prompts = prompts
        self._n = n
        self._n_told = n_told
        self._logprobs = logprobs
        self._candidates = [_Candidate() for _ in range(len(prompts) * n)]

    def write(self, event: AnswerEvent) -> bytes:
        match event:
            case Piece(index, text, _, scores):
                self._candidates[index].take(text, scores)
            case Echoed(index, tokens):
                text = _prompt_text(self._prompts[index // self._n], tokens)
                self._candidates[index].echo(text, tokens)
            case End(index, reason, scores):
                self._candidates[index].take("", scores)
                self._candidates[index].reason = reason
            case Tokens():
                return self._whole(event)
            case _:
                assert_never(event)
        return b""

    def _told(self) -> list[_Candidate]:
        """By prompt; the best first where there are more than are told."""
        if self._n_told == self._n:
            return self._candidates
        told: list[_Candidate] = []
        for at in range(0, len(self._candidates), self._n):
            ranked = sorted(
                self._candidates[at : at + self._n], key=lambda c: -mean_logprob(c.scores)
            )
            told += ranked[: self._n_told]
        return told

    def _whole(self, tokens: Tokens) -> bytes:
        answer = Completion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=[
                candidate.choice(index, self._logprobs)
                for index, candidate in enumerate(self._told())
            ],
            usage=Usage.of(tokens),
            system_fingerprint=self._head.system_fingerprint,
        )
        return answer.model_dump_json().encode()
