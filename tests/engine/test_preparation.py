"""Who waits for a grammar to be compiled, and who does not."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from server.engine.grammar import Constraint, Grammars
from server.engine.job import Limits
from server.engine.preparation import Commands, Inbox, Preparation
from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.errors import InvalidRequest
from server.ipc import (
    Answer,
    Ask,
    Cancel,
    Failed,
    GenerateRequest,
    Grammar,
    Shutdown,
    Submit,
    Text,
    Tokenize,
)
from tests.engine.fake import GREEDY, FakeTokenizer
from tests.pool.scripted_worker import INFO

WAIT_S = 60
SLOW = Grammar("regex", "[0-9]+")
WRONG = Grammar("regex", "(", "regex")


class Prepared:
    """A preparation whose compiler waits for `go`."""

    def __init__(self) -> None:
        self.commands: Commands = SimpleQueue()
        self.inbox: Inbox = SimpleQueue()
        self.begun, self.go = threading.Event(), threading.Event()
        limits = Limits(embeds=False, ranks=False, n_ctx=INFO.n_ctx)
        preparation = Preparation(Vocabulary(FakeTokenizer()), INFO, limits, self.inbox)
        for target, args in ((preparation.read, (self.commands,)), (preparation.compile, ())):
            threading.Thread(target=target, args=args, daemon=True).start()

    def submit(self, id: int, grammar: Grammar | None = None) -> None:
        self.commands.put(Submit(id, GenerateRequest(Text("A"), GREEDY, grammar=grammar)))

    def next(self) -> object:
        return self.inbox.get(timeout=WAIT_S)

    def sequence(self) -> int:
        found = self.next()
        assert isinstance(found, Sequence), found
        return found.id


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Prepared]:
    compile = Grammars.compile
    found = Prepared()

    def wait(self: Grammars, grammar: Grammar) -> Constraint:
        found.begun.set()
        assert found.go.wait(WAIT_S)
        return compile(self, grammar)

    monkeypatch.setattr(Grammars, "compile", wait)
    yield found
    found.go.set()


def test_a_grammar_holds_up_nobody_without_one(prepared: Prepared) -> None:
    prepared.submit(1, SLOW)
    assert prepared.begun.wait(WAIT_S)
    prepared.submit(2)
    prepared.commands.put(Ask(3, Tokenize("AB")))
    prepared.commands.put(Shutdown())
    assert prepared.sequence() == 2
    answer = prepared.next()
    assert isinstance(answer, Answer) and answer.id == 3
    assert prepared.next() == Shutdown()
    prepared.go.set()
    assert prepared.sequence() == 1


def test_grammars_come_in_their_order_and_faults_are_told(prepared: Prepared) -> None:
    prepared.go.set()
    for id, grammar in ((1, SLOW), (2, WRONG), (3, SLOW)):
        prepared.submit(id, grammar)
    assert prepared.sequence() == 1
    failed = prepared.next()
    assert isinstance(failed, Failed) and failed.id == 2
    assert isinstance(failed.error, InvalidRequest) and failed.error.param == "regex"
    assert prepared.sequence() == 3


def test_who_leaves_while_a_grammar_is_compiled_is_cancelled_after_it(prepared: Prepared) -> None:
    prepared.submit(1, SLOW)
    assert prepared.begun.wait(WAIT_S)
    prepared.commands.put(Cancel(1))
    assert prepared.next() == Cancel(1)
    prepared.go.set()
    assert prepared.sequence() == 1
    assert prepared.next() == Cancel(1)


def test_who_leaves_before_that_has_nothing_compiled(prepared: Prepared) -> None:
    prepared.submit(1, SLOW)
    assert prepared.begun.wait(WAIT_S)
    prepared.submit(2, WRONG)
    prepared.commands.put(Cancel(2))
    assert prepared.next() == Cancel(2)
    prepared.go.set()
    assert prepared.sequence() == 1
    failed = prepared.next()
    assert isinstance(failed, Failed) and failed.error.message == "cancelled while it waited"
    assert prepared.next() == Cancel(2)


def test_a_cancel_of_others_passes_as_it_is(prepared: Prepared) -> None:
    prepared.go.set()
    prepared.submit(1, SLOW)
    assert prepared.sequence() == 1
    prepared.submit(2)
    assert prepared.sequence() == 2
    prepared.commands.put(Cancel(2))
    prepared.submit(3, SLOW)
    assert prepared.next() == Cancel(2)
    assert prepared.sequence() == 3
