"""Sequence: one request in the engine, from its tokens to its last."""

from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from server.engine.batch import Tokens
from server.engine.detokenizer import Detokenizer
from server.engine.llama import State
from server.engine.prompt_lookup import PromptLookup
from server.engine.sampler import Sampler
from server.engine.scores import ScoreQueue, unscored
from server.engine.vocabulary import Vocabulary
from server.errors import ContextLengthExceeded, InvalidRequest
from server.ipc import GenerateRequest, Infill, Text, TokenScore

if TYPE_CHECKING:
    from server.engine.grammar import Constraint


class Sequence:
    """Tokens and one cursor. Made on the receiving thread, then touched by the engine only.

    tokens  [0, n_cached)         have cells in the slot
            [n_cached, n_tokens)  are still to be forwarded
            [0, n_prompt)         the prompt; what follows is the answer
    """

    def __init__(
        self,
        id: int,
        request: GenerateRequest,
        vocabulary: Vocabulary,
        n_ctx: int,
        constraint: "Constraint | None" = None,
    ):
        prompt = _read_prompt(request, vocabulary, n_ctx)
        vocabulary.check("logit_bias", [t for t, _ in request.sampling.logit_bias])
        self.id = id
        self.n_prompt = len(prompt)
        self._n_ctx = n_ctx
        room = n_ctx - self.n_prompt
        self.max_tokens = room if request.max_tokens is None else min(request.max_tokens, room)
        self._buffer = np.empty(self.n_prompt + self.max_tokens, np.int32)
        self._buffer[: self.n_prompt] = prompt
        self.n_tokens = self.n_prompt
        self.n_cached = 0
        self.n_reused = 0
        """Prompt tokens whose cells were there already."""
        self.slot: int | None = None
        self._made = perf_counter()
        self.queued_s = 0.0
        """How long it waited for its first slot."""
        self.parked: State | None = None
        """The cells of a sequence that was sent back to waiting."""
        self.cache_prompt = request.cache_prompt
        self.sampler = Sampler(request.sampling, vocabulary, prompt, constraint)
        self._constraint = constraint
        self._lookup: PromptLookup | None = None
        self.n_drafted = self.n_accepted = 0
        """Guesses that were forwarded, and those of them that were right."""
        self.forced = deque(constraint.forced if constraint else ())
        """Tokens that must come next, by the grammar, in this order."""
        self.detokenizer = Detokenizer(request.stop, request.keep_stop)
        self.n_unsent = 0
        """Generated tokens that no event has counted yet."""
        self.n_top = request.logprobs
        """How many of the best tokens a score names; None: nobody wants scores."""
        self.scores = None if self.n_top is None else ScoreQueue(bool(request.stop))
        self.echo: list[TokenScore] | None = None
        """The prompt's tokens that are still to be told, complete when all are forwarded."""
        if request.echo:
            n_known = 1 if self.scores else self.n_prompt
            self.echo = unscored(prompt[:n_known].tolist(), vocabulary)
        self._vocabulary = vocabulary
        self._visible = {
            vocabulary.special[text]: text.encode()
            for text in request.visible
            if text in vocabulary.special
        }

    @property
    def tokens(self) -> Tokens:
        """Prompt and answer so far."""
        return self._buffer[: self.n_tokens]

    @property
    def prompt(self) -> Tokens:
        """The prompt alone."""
        return self._buffer[: self.n_prompt]

    @property
    def cached(self) -> Tokens:
        """The tokens that have cells."""
        return self._buffer[: self.n_cached]

    @property
    def n_pending(self) -> int:
        """Tokens to be forwarded before the next one can be sampled; 1 while decoding."""
        return self.n_tokens - self.n_cached

    @property
    def n_completion(self) -> int:
        """Generated tokens."""
        return self.n_tokens - self.n_prompt

    @property
    def n_left(self) -> int:
        """Tokens that may still be generated."""
        return self.max_tokens - self.n_completion

    @property
    def wants_all_logits(self) -> bool:
        """Its prompt is being scored, so every token of it must be forwarded."""
        return self.echo is not None and len(self.echo) < self.n_prompt

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to this answer."""
        if self._visible and token in self._visible:
            return self._visible[token]
        return self._vocabulary.piece(token)

    @property
    def is_full(self) -> bool:
        """No more tokens were asked for, or fit."""
        return not self.n_left

    @property
    def has_grammar(self) -> bool:
        """Some of its tokens may be forced."""
        return self._constraint is not None

    @property
    def is_complete(self) -> bool:
        """By its grammar nothing can follow."""
        return self._constraint is not None and not self.forced and self._constraint.is_complete

    def following(self, token: int) -> Iterator[int]:
        """The next token and those that the grammar forces after it. Raises InvalidRequest.

        Where scores are wanted these come one by one: each takes a row of logits.
        """
        if self._constraint is None:
            yield token
            return
        chosen = not self.forced
        if chosen:
            self.forced.extend([token, *self._constraint.advance(token)])
        for _ in range(len(self.forced) if self.scores is None else 1):
            if not chosen:
                self.sampler.accept(self.forced[0])
            chosen = False
            yield self.forced.popleft()

    def look_up(self) -> None:
        """Guess its next tokens from now on. What a grammar forces needs no guesses."""
        if self._constraint is None:
            self._lookup = PromptLookup(self.tokens.tolist())

    @property
    def n_sure(self) -> int:
        """Guesses that a draft may have, as far as the context goes."""
        return min(self._lookup.n_sure, self._n_ctx - self.n_tokens) if self._lookup else 0

    def draft(self, n: int) -> list[int]:
        """Its next `n` tokens, as they may be; at most `n_sure`."""
        assert self._lookup is not None
        return self._lookup.draft(n)

    def begin(self) -> None:
        """It has a slot."""
        self.queued_s = self.queued_s or perf_counter() - self._made

    def append(self, token: int) -> None:
        """Take the next token."""
        self._buffer[self.n_tokens] = token
        self.n_tokens += 1
        self.n_unsent += 1
        if self._lookup is not None:
            self._lookup.take(token)

    def take_unsent(self) -> int:
        """The number of tokens that the next event counts."""
        n, self.n_unsent = self.n_unsent, 0
        return n


def _read_prompt(request: GenerateRequest, vocabulary: Vocabulary, n_ctx: int) -> Tokens:
    """The prompt's token ids. Raises InvalidRequest or ContextLengthExceeded."""
    param = request.prompt_param
    match request.prompt:
        case Text() as text:
            tokens = vocabulary.tokenize(text)
        case Infill() as infill:
            tokens = vocabulary.infill(infill)
        case tuple() as ids:
            vocabulary.check(param, ids)
            tokens = np.array(ids, np.int32)
    if not len(tokens):
        raise InvalidRequest("the prompt is empty, and the model has no token to begin with", param)
    if len(tokens) > n_ctx or (len(tokens) == n_ctx and request.max_tokens != 0):
        raise ContextLengthExceeded(
            f"prompt of {len(tokens):,} tokens, context of {n_ctx:,}: at least one token must "
            "remain for the answer",
            param,
        )
    return tokens
