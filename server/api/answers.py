"""Answers: the choices of one request, submitted together and closed together."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal

from server.errors import CorralError
from server.ipc import Delta, Finished, GenerateRequest
from server.metrics import Metrics
from server.pool.generation import Generation
from server.pool.worker import Worker

EndReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of choice `index`."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class End:
    """Choice `index` is complete."""

    index: int
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the whole request took; always the last event."""

    prompt: int
    cached: int
    completion: int


AnswerEvent = Piece | End | Tokens


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
        yield tokens

    def _translate(
        self, index: int, event: Delta | Finished, ends: dict[int, Finished]
    ) -> list[AnswerEvent]:
        """What one generation's event means for choice `index`; its end is noted in `ends`."""
        self._paces[index].tokens(event.n_tokens)
        told: list[AnswerEvent] = [Piece(index, event.text)] if event.text else []
        if isinstance(event, Finished):
            ends[index] = event
            told.append(End(index, _end_reason(event)))
        return told

    def _count(self, ends: Sequence[Finished]) -> Tokens:
        """The sums; a prompt counts once, however many choices it has."""
        prompts = [ends[at : at + self._n] for at in range(0, len(ends), self._n)]
        return Tokens(
            prompt=sum(choices[0].n_prompt for choices in prompts),
            # Of choices with one prompt, the one that found least paid for the others.
            cached=sum(min(choice.n_cached for choice in choices) for choices in prompts),
            completion=sum(end.n_completion for end in ends),
        )

    async def _merged(self) -> AsyncGenerator[tuple[int, Delta | Finished]]:
        # One place only: while it is taken, unread deltas merge in their generations.
        queue: asyncio.Queue[tuple[int, Delta | Finished | Exception]] = asyncio.Queue(1)
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
    queue: asyncio.Queue[tuple[int, Delta | Finished | Exception]],
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
