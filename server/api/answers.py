"""Answers: the choices of one request, submitted together and closed together."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from server.errors import CorralError
from server.ipc import Delta, Echo, Finished, GenerateRequest, TokenScore
from server.metrics import Metrics
from server.pool.generation import Generation
from server.pool.worker import Worker

EndReason = Literal["stop", "length"]


class Piece(NamedTuple):
    """New text of a choice, from `n_tokens` tokens; their scores if asked for."""

    choice: int
    text: str
    n_tokens: int
    scores: tuple[TokenScore, ...] = ()
    last: bool = False
    """The end of the choice comes next."""


class Echoed(NamedTuple):
    """The prompt of a choice, token by token. Comes before anything else of it."""

    choice: int
    tokens: tuple[TokenScore, ...]


class End(NamedTuple):
    """A choice is complete; the scores of tokens that brought no more text."""

    choice: int
    reason: EndReason
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the whole request took; always the last event."""

    prompt: int
    cached: int
    completion: int
    reasoning: int = 0
    """Of `completion`, as far as the reader of the answer has told."""
    queued_s: float = 0.0
    """How long the choices waited for a slot: the one that waited longest."""


AnswerEvent = Piece | Echoed | End | Tokens
GenerationEvent = Echo | Delta | Finished


class Answers:
    """Owns the generations of one request. The response that holds it must close it.

    `requests` are the choices in order of their index, `n` in a row for each prompt.
    """

    def __init__(
        self,
        worker: Worker,
        requests: Sequence[GenerateRequest],
        n: int,
        metrics: Metrics,
        arrived: float,
    ):
        self._model = worker.model
        self._n = n
        self._metrics = metrics
        self._generations: list[Generation] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._paces = [metrics.pace(worker.model, arrived) for _ in requests]
        try:
            for request in requests:
                self._generations.append(worker.submit(request))
        except CorralError:
            self.close()
            raise

    def close(self) -> None:
        """Nobody reads any more. Safe to call again."""
        for generation in self._generations:
            generation.close()
        for pump in self._pumps:
            pump.cancel()

    async def accepted(self) -> None:
        """Wait until all are known to be sound. Raises the first error."""
        for generation in self._generations:
            await generation.accepted()

    async def events(self) -> AsyncGenerator[AnswerEvent]:
        """The events of all choices as they come, then Tokens. Raises the first error."""
        ends: dict[int, Finished] = {}
        if len(self._generations) == 1:
            # Not by way of `_merged`: this is where most time per token would go.
            async for event in self._generations[0]:
                for piece in self._translate(0, event, ends):
                    yield piece
        else:
            async for index, event in self._merged():
                for piece in self._translate(index, event, ends):
                    yield piece
        tokens = self._count([ends[index] for index in range(len(self._generations))])
        self._metrics.count_tokens(self._model, tokens.prompt, tokens.cached, tokens.completion)
        self._metrics.count_drafts(
            self._model,
            sum(end.n_drafted for end in ends.values()),
            sum(end.n_accepted for end in ends.values()),
        )
        yield tokens

    def _translate(
        self, index: int, event: GenerationEvent, ends: dict[int, Finished]
    ) -> list[AnswerEvent]:
        """What one generation's event means for choice `index`; its end is noted in `ends`."""
        if isinstance(event, Echo):
            return [Echoed(index, event.tokens)]
        self._paces[index].tokens(event.n_tokens)
        text, scores = event.text, event.scores
        if isinstance(event, Delta):
            return [Piece(index, text, event.n_tokens, scores)] if text or scores else []
        ends[index] = event
        reason = _end_reason(event)
        if text:
            return [Piece(index, text, event.n_tokens, scores, True), End(index, reason)]
        return [End(index, reason, scores)]

    def _count(self, ends: Sequence[Finished]) -> Tokens:
        """The sums; a prompt counts once, however many choices it has."""
        prompts = [ends[at : at + self._n] for at in range(0, len(ends), self._n)]
        return Tokens(
            prompt=sum(choices[0].n_prompt for choices in prompts),
            # Of choices with one prompt, the one that found least paid for the others.
            cached=sum(min(choice.n_cached for choice in choices) for choices in prompts),
            completion=sum(end.n_completion for end in ends),
            queued_s=max(end.queued_s for end in ends),
        )

    async def _merged(self) -> AsyncGenerator[tuple[int, GenerationEvent]]:
        # One place only: while it is taken, unread deltas merge in their generations.
        queue: asyncio.Queue[tuple[int, GenerationEvent | Exception]] = asyncio.Queue(1)
        self._pumps = [
            asyncio.create_task(_pump(index, generation, queue))
            for index, generation in enumerate(self._generations)
        ]
        n_open = len(self._generations)
        while n_open:
            index, event = await queue.get()
            if isinstance(event, Exception):
                raise event
            n_open -= isinstance(event, Finished)
            yield index, event


async def _pump(
    index: int,
    generation: Generation,
    queue: asyncio.Queue[tuple[int, GenerationEvent | Exception]],
) -> None:
    try:
        async for event in generation:
            await queue.put((index, event))
    # All that a generation raises; anything else would leave the reader waiting.
    except (CorralError, AssertionError) as error:
        await queue.put((index, error))


def _end_reason(event: Finished) -> EndReason:
    if event.reason == "cancelled":
        raise AssertionError("a request was cancelled while its client was reading")
    return event.reason
