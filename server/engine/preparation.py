"""Preparation: commands to sequences and jobs, on threads beside the engine's.

One thread tokenizes and checks. Another compiles grammars first, which may take seconds: then those
wait whose answers have grammars, and nobody else.
"""

from collections.abc import Callable
from functools import cached_property
from queue import SimpleQueue
from typing import TYPE_CHECKING, assert_never

from server.engine.job import Job, Limits, look_up
from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.errors import CorralError, InvalidRequest
from server.ipc import (
    Answer,
    Ask,
    Cancel,
    Embed,
    Failed,
    ModelInfo,
    Question,
    Rank,
    Shutdown,
    Submit,
    UseThreads,
)

if TYPE_CHECKING:
    from server.engine.grammar import Grammars

Prepared = Sequence | Job | Cancel | Answer | Failed | UseThreads | Shutdown
"""What the engine's thread is given."""

Inbox = SimpleQueue[Prepared]
Commands = SimpleQueue[Submit | Ask | Cancel | UseThreads | Shutdown]


class Preparation:
    """Puts what comes of commands into the inbox. `read` and `compile` run on a thread each."""

    def __init__(self, vocabulary: Vocabulary, info: ModelInfo, limits: Limits, inbox: Inbox):
        self._vocabulary = vocabulary
        self._info = info
        self._limits = limits
        self._inbox = inbox
        self._with_grammar: SimpleQueue[Submit] = SimpleQueue()
        self._pending: set[int] = set()
        """Requests whose grammars are not compiled yet. Added to by `read`, taken by `compile`."""
        self._unwanted: set[int] = set()
        """Those of them that were cancelled meanwhile."""

    def read(self, commands: Commands) -> None:
        """Prepare what comes, forever."""
        while True:
            command = commands.get()
            match command:
                case Submit(id=id, request=request):
                    if request.grammar is None:
                        self._prepare(id, lambda command=command: self._sequence(command))
                    else:
                        self._pending.add(id)
                        self._with_grammar.put(command)
                case Ask(id=id, question=question):
                    self._prepare(id, lambda id=id, asked=question: self._answer(id, asked))
                case Cancel(id=id):
                    if id in self._pending:
                        self._unwanted.add(id)
                    self._inbox.put(command)
                case UseThreads() | Shutdown():
                    self._inbox.put(command)
                case _:
                    assert_never(command)

    def compile(self) -> None:
        """Prepare requests with grammars, forever."""
        while True:
            submit = self._with_grammar.get()
            id = submit.id
            if id in self._unwanted:
                self._inbox.put(Failed(id, InvalidRequest("cancelled while it waited")))
            else:
                self._prepare(id, lambda submit=submit: self._sequence(submit))
            self._pending.discard(id)
            if id in self._unwanted:
                # Its Cancel came to the engine before the sequence did, and found none.
                self._unwanted.discard(id)
                self._inbox.put(Cancel(id))

    def _prepare(self, id: int, make: Callable[[], Prepared]) -> None:
        try:
            self._inbox.put(make())
        except CorralError as error:
            self._inbox.put(Failed(id, error))

    def _sequence(self, submit: Submit) -> Sequence:
        info, grammar = self._info, submit.request.grammar
        if not info.generates:
            what = "ranks documents" if info.ranks else "gives embeddings"
            raise InvalidRequest(f"this model {what}, it does not generate text", "model")
        constraint = self._grammars.compile(grammar) if grammar else None
        return Sequence(submit.id, submit.request, self._vocabulary, info.n_ctx, constraint)

    @cached_property
    def _grammars(self) -> "Grammars":
        """Imported with the first: a start takes long enough."""
        from server.engine.grammar import Grammars

        return Grammars(self._vocabulary)

    def _answer(self, id: int, question: Question) -> Job | Answer:
        if isinstance(question, Embed | Rank):
            return Job(id, question, self._vocabulary, self._limits)
        return Answer(id, look_up(question, self._vocabulary))
