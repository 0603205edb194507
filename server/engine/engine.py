"""Engine: one step after another. Decode what runs, send it, then prefill what is new."""

import logging
import time
from collections.abc import Callable, Iterator
from itertools import groupby, zip_longest
from operator import attrgetter
from typing import Protocol

from server.engine.batch import Batch
from server.engine.kv import Cells, KVCells
from server.engine.llama import Logits, NoRoom
from server.engine.scheduler import Scheduler, Span, fill
from server.engine.scores import score
from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.errors import CorralError, EngineError, InvalidRequest
from server.ipc import Accepted, Delta, Echo, Event, Failed, Finished, FinishReason

log = logging.getLogger(__name__)

MIN_PREFILL = 64
"""Prompt tokens that a step takes at least, however slow the machine is."""


MAX_SHARE = 4.0
"""Times `prefill_ms` that prompts may take where many wait and few stream."""


class Context(Cells, Protocol):
    """What the engine needs of llama.cpp; the tests have one of their own."""

    n_batch: int

    def forward(self, batch: Batch) -> None: ...
    def logits(self, n_rows: int) -> Logits: ...


class Engine:
    """Runs sequences over one context. Used by one thread.

    `emit` takes the events of a forward, as soon as they are there. `flush` is called before
    something that takes longer than one.
    """

    def __init__(
        self,
        context: Context,
        vocabulary: Vocabulary,
        kv: KVCells,
        prefill_ms: int,
        n_ubatch: int,
        n_draft: int,
        one_by_one: bool,
        emit: Callable[[list[Event]], None],
        flush: Callable[[], None] = lambda: None,
    ):
        self._context = context
        self._vocabulary = vocabulary
        self._kv = kv
        self.scheduler = Scheduler(kv)
        self._prefill_s = prefill_ms / 1000
        self._n_ubatch = n_ubatch
        self._n_draft = n_draft if kv.can_trim else 0
        self._one_by_one = one_by_one
        """Prompts of different lengths in one batch would be cut into many small ones."""
        self._emit = emit
        self._flush = flush
        self._batch = Batch(context.n_batch)
        self._prefill_rate = 0.0
        """Prompt tokens per second, a moving mean; 0 before the first."""

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self.scheduler.running and not self.scheduler.waiting

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._emit([Accepted(sequence.id, sequence.n_prompt)])
        if self._n_draft:
            sequence.look_up()
        if sequence.max_tokens or sequence.wants_all_logits:
            self.scheduler.add(sequence)
        else:
            self._emit([*self._echo(sequence), self._finished(sequence, "length")])

    def cancel(self, id: int) -> None:
        """End a request whose client has gone; nothing happens if it has ended."""
        sequence = self.scheduler.find(id)
        if sequence is not None:
            self.scheduler.remove(sequence, keep=sequence.cache_prompt)
            self._emit([self._finished(sequence, "cancelled")])

    def step(self) -> None:
        """One token for everybody who decodes, and some prompt tokens for the others."""
        self.scheduler.admit()
        n_batch = self._context.n_batch
        decoding = self.scheduler.drafted(self.scheduler.decoding(), self._n_draft, n_batch)
        for spans in fill(decoding, n_batch):
            self._run(spans)
        prefilling = self.scheduler.prefilling(self._budget(len(decoding)))
        if prefilling:
            self._flush()
        started = time.monotonic()
        for spans in self._groups(prefilling):
            self._run(spans)
        if prefilling:
            self._measure(sum(span.n for span in prefilling), time.monotonic() - started)

    def check(self) -> None:
        """Raises AssertionError where slots or cells got lost. Only when idle."""
        assert self._kv.n_free == len(self._kv.slots)
        self._kv.check()

    def _budget(self, n_decoding: int) -> int:
        """Prompt tokens that this step may take.

        Where more wait for their first token than stream, they may take more of it.
        """
        timely = self._prefill_rate * self._prefill_s
        if not n_decoding:
            return max(self._n_ubatch, int(timely))
        share = (len(self.scheduler.running) - n_decoding) / n_decoding
        return max(MIN_PREFILL, int(timely * min(max(share, 1.0), MAX_SHARE)))

    def _measure(self, n_tokens: int, seconds: float) -> None:
        if n_tokens < MIN_PREFILL and self._prefill_rate:
            return  # most of so short a time is not the tokens'
        rate = n_tokens / max(seconds, 1e-6)
        # The rate falls along a prompt: the last chunk says more than the mean.
        self._prefill_rate = (self._prefill_rate + 3 * rate) / 4 if self._prefill_rate else rate

    def _groups(self, spans: list[Span]) -> Iterator[list[Span]]:
        n_batch = self._context.n_batch
        if not self._one_by_one:
            yield from fill(spans, n_batch)
            return
        for n, alike in groupby(sorted(spans, key=attrgetter("n")), key=attrgetter("n")):
            yield from fill(list(alike), min(max(n, self._n_ubatch), n_batch))

    def _run(self, spans: list[Span]) -> None:
        """Forward the spans, sample where a sequence's end is reached, send what comes of it."""
        # A group before this one may have sent some back to waiting.
        spans = self._forward([span for span in spans if span.sequence.slot is not None])
        n_rows = self._batch.n_rows
        if not spans or not n_rows:
            for span in spans:
                span.sequence.n_cached += span.n
            return
        logits = self._context.logits(n_rows)
        ready = [span.sequence for span in spans if span.reaches_end]
        drafted = bool(spans[0].draft)
        if n_rows > len(ready) and not drafted:
            logits = self._score_prompts(spans, logits)
        for span in spans:
            span.sequence.n_cached += span.n
        if not ready:
            return
        told = self._verify(spans, logits) if drafted else self._sample(ready, logits)
        self._emit([event for events in told for event in events])

    def _score_prompts(self, spans: list[Span], logits: Logits) -> Logits:
        """Score the prompt tokens that follow rows; returns the rows after which one samples."""
        last: list[int] = []
        row = 0
        for span in spans:
            s, n_rows = span.sequence, span.n_rows
            if s.wants_all_logits and s.echo is not None:
                following = s.prompt[s.n_cached + 1 : s.n_cached + 1 + span.n].tolist()
                pieces = self._vocabulary.spell(following)
                s.echo += [
                    score(logits[row + i], token, s.n_top or 0, self._vocabulary)._replace(
                        piece=piece
                    )
                    for i, (token, piece) in enumerate(zip(following, pieces, strict=True))
                ]
            row += n_rows
            if span.reaches_end:
                last.append(row - 1)
        return logits[last]

    def _forward(self, spans: list[Span]) -> list[Span]:
        """Compute the spans; those of sequences that had to make room are left out."""
        while spans:
            self._batch.clear()
            for span in spans:
                s = span.sequence
                assert s.slot is not None
                tokens = s.tokens[s.n_cached : s.n_cached + span.n]
                tokens = [*tokens.tolist(), *span.draft] if span.draft else tokens
                self._batch.add(s.slot, tokens, s.n_cached, span.n_rows)
            try:
                self._context.forward(self._batch)
            except NoRoom as error:
                # Nobody has to go for the sake of a guess.
                drafted = spans[0].draft
                plain = [Span(span.sequence, span.n) for span in spans]
                spans = plain if drafted else self._make_room(spans, error)
            except EngineError as error:
                self._isolate(spans, error)
                return []
            else:
                return spans
        return spans

    def _isolate(self, spans: list[Span], error: EngineError) -> None:
        """Find out who is at fault for a refused batch: the others go on."""
        if len(spans) == 1:
            self._fail(spans, error)
            return
        for span in spans:
            self._kv.rewind(span.sequence)
        for span in spans:
            self._run([span])

    def _make_room(self, spans: list[Span], error: NoRoom) -> list[Span]:
        """Kept prefixes go first, then the youngest sequence waits; returns what can still run."""
        if self._kv.make_room():
            return spans
        parked = self.scheduler.preempt()
        if parked is None:
            self._fail(spans, EngineError(f"{error}, though nothing else runs"))
            return []
        log.info("request %d waits for cells, %d tokens so far", parked.id, parked.n_tokens)
        return [span for span in spans if span.sequence is not parked]

    def _fail(self, spans: list[Span], error: CorralError) -> None:
        for span in spans:
            self.scheduler.remove(span.sequence, keep=False)
            self._emit([Failed(span.sequence.id, error)])

    def _sample(self, sequences: list[Sequence], logits: Logits) -> Iterator[list[Event]]:
        """Take each sequence's next token; `logits` has a row for each."""
        if all(s.sampler.plain and s.scores is None for s in sequences):
            for sequence, best in zip(sequences, logits.argmax(axis=1).tolist(), strict=True):
                yield self._advance(sequence, best)
            return
        for sequence, row in zip(sequences, logits, strict=True):
            try:
                yield self._advance(sequence, self._sample_one(sequence, row))
            except InvalidRequest as error:
                # Its grammar is too complex after all, or cannot be written with these tokens.
                self.scheduler.remove(sequence, keep=False)
                yield [Failed(sequence.id, error)]

    def _verify(self, spans: list[Span], logits: Logits) -> Iterator[list[Event]]:
        """Take of each draft what is right, and the token after it.

        `logits` has a row for the token before each guess, and one for the token after the last.
        """
        of_spans = logits.reshape(len(spans), -1, logits.shape[1])
        for (sequence, _, draft), rows in zip(spans, of_spans, strict=True):
            sequence.n_drafted += len(draft)
            for row, guess in zip_longest(rows, draft):
                token = self._sample_one(sequence, row)
                yield self._advance(sequence, token)
                if token != guess:
                    break
                sequence.n_accepted += 1
                if sequence.slot is None:
                    break
                sequence.n_cached += 1
            if sequence.slot is not None:
                self._kv.rewind(sequence)

    def _sample_one(self, sequence: Sequence, row: Logits) -> int:
        scores, forced = sequence.scores, sequence.forced
        if scores is None:
            return forced[0] if forced else sequence.sampler.sample(row, sequence.tokens)
        # Sampling changes the row, and scores are of what the model said.
        token = forced[0] if forced else sequence.sampler.sample(row.copy(), sequence.tokens)
        scores.add(score(row, token, sequence.n_top or 0, self._vocabulary))
        return token

    def _advance(self, sequence: Sequence, token: int) -> list[Event]:
        """Take the next token and what a grammar forces after it: a delta, the end, or nothing."""
        if sequence.echo is not None:
            return self._begin(sequence, token)
        detokenizer, text = sequence.detokenizer, ""
        if token in self._vocabulary.end_set:
            sequence.append(token)
            return self._end(sequence, "stop", detokenizer.finish())
        for taken in sequence.following(token):
            sequence.append(taken)
            text += detokenizer.push(sequence.piece(taken))
            if detokenizer.stopped:
                return self._end(sequence, "stop", text)
            if sequence.is_full:
                break
        if sequence.is_full or sequence.is_complete:
            text += detokenizer.finish()
            complete = sequence.is_complete or detokenizer.stopped
            return self._end(sequence, "stop" if complete else "length", text)
        if not text:
            return []
        scores = sequence.scores.take(text) if sequence.scores else ()
        return [Delta(sequence.id, text, sequence.take_unsent(), scores)]

    def _begin(self, sequence: Sequence, token: int) -> list[Event]:
        """Tell the prompt before the first token of the answer, if there is to be one."""
        echo = self._echo(sequence)
        if sequence.max_tokens:
            return echo + self._advance(sequence, token)
        # The score of a token that nobody gets.
        sequence.scores = None
        self.scheduler.remove(sequence, keep=sequence.cache_prompt)
        return [*echo, self._finished(sequence, "length")]

    def _echo(self, sequence: Sequence) -> list[Event]:
        """The prompt's tokens, once, if they were asked for."""
        echo, sequence.echo = sequence.echo, None
        return [] if echo is None else [Echo(sequence.id, tuple(echo))]

    def _end(self, sequence: Sequence, reason: FinishReason, text: str) -> list[Event]:
        self.scheduler.remove(sequence, keep=sequence.cache_prompt)
        return [self._finished(sequence, reason, text)]

    def _finished(self, sequence: Sequence, reason: FinishReason, text: str = "") -> Finished:
        scores = sequence.scores
        stopped = sequence.detokenizer.stopped
        return Finished(
            id=sequence.id,
            text=text,
            n_tokens=sequence.take_unsent(),
            reason=reason,
            n_prompt=sequence.n_prompt,
            n_cached=sequence.n_reused,
            n_completion=sequence.n_completion,
            scores=scores.finish(text, stopped) if scores else (),
            queued_s=sequence.queued_s,
            n_drafted=sequence.n_drafted,
            n_accepted=sequence.n_accepted,
        )
