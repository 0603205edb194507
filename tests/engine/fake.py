"""A context without a model: it knows which tokens each slot holds, and answers from them alone.

The logits of a row are a hash of all tokens up to it, so an answer is right only if every cell that
led to it was right: computed, shared, copied, saved or moved.
"""

from collections.abc import Sequence as Ids
from dataclasses import dataclass

import numpy as np

from server.engine.batch import Batch, Tokens
from server.engine.engine import Engine
from server.engine.kv import KVCells
from server.engine.llama import Logits, NoRoom, State
from server.engine.sequence import Sequence
from server.engine.vocabulary import Vocabulary
from server.ipc import Accepted, Delta, Event, Failed, Finished, GenerateRequest
from server.sampling import SamplingParams

N_VOCAB = 64
END = 0
GREEDY = SamplingParams(temperature=0)


class FakeTokenizer:
    """Token n is the character `chr(32 + n)`; token 0 ends an answer."""

    n_tokens = N_VOCAB
    bos = -1
    eos = END
    pad = -1
    fim = None
    sep = -1
    adds_bos = False
    adds_eos = False
    adds_sep = False
    pointer = None

    def is_end(self, token: int) -> bool:
        return token == END

    def is_control(self, token: int) -> bool:
        return token == END

    def text(self, token: int) -> str:
        return chr(32 + token) if token > 0 else ""

    def piece(self, token: int, special: bool = False) -> bytes:
        del special
        return b"" if token == END else chr(32 + token).encode()

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> Tokens:
        del add_special, parse_special
        return np.array([ord(character) - 32 for character in text], np.int32)


def next_logits(tokens: Ids[int], loops: bool = False) -> Logits:
    """The logits after these tokens, [N_VOCAB].

    If it `loops`, most tokens follow from the last one alone: the text repeats itself a lot.
    """
    known = tokens[-1:] if loops and sum(tokens) % 29 else tokens
    seed = hash(tuple(known)) % 2**32
    return np.random.default_rng(seed).normal(size=N_VOCAB).astype(np.float32)


def expected(prompt: Ids[int], max_tokens: int, loops: bool = False) -> str:
    """The greedy answer, computed alone and from nothing."""
    tokens, text = list(prompt), ""
    while len(tokens) - len(prompt) < max_tokens:
        token = int(next_logits(tokens, loops).argmax())
        if token == END:
            break
        tokens.append(token)
        text += chr(32 + token)
    return text


@dataclass(frozen=True, eq=False)
class Cell:
    """One token's K and V; shared cells are the same object."""

    token: int


class FakeContext:
    """Cells by slot. Asserts what llama.cpp would abort on, and that positions have no gaps."""

    def __init__(
        self,
        n_slots: int = 4,
        n_ctx: int = 64,
        n_batch: int = 16,
        n_cells: int | None = None,
        can_trim: bool = True,
        loops: bool = False,
    ):
        self.n_slots, self.n_ctx, self.n_batch = n_slots, n_ctx, n_batch
        self.n_cells, self.can_trim = n_cells, can_trim
        self.loops = loops
        self.cells: list[list[Cell]] = [[] for _ in range(n_slots)]
        self._saved: dict[int, list[int]] = {}
        self._rows: list[Logits] = []
        self.n_forwarded = 0
        self.batches: list[list[int]] = []

    def forward(self, batch: Batch) -> None:
        assert 0 < batch.n_tokens <= self.n_batch
        if self.n_cells is not None and self.n_used + batch.n_tokens > self.n_cells:
            raise NoRoom(f"{self.n_used} of {self.n_cells} cells in use")
        self._rows = []
        self.batches.append(batch.slot[: batch.n_tokens].tolist())
        for i in range(batch.n_tokens):
            held = self.cells[int(batch.slot[i])]
            assert batch.pos[i] == len(held), f"position {batch.pos[i]}, {len(held)} cells"
            held.append(Cell(int(batch.token[i])))
            assert len(held) <= self.n_ctx
            if batch.wants_logits[i]:
                self._rows.append(next_logits([cell.token for cell in held], self.loops))
        self.n_forwarded += batch.n_tokens

    def logits(self, n_rows: int) -> Logits:
        assert n_rows == len(self._rows)
        return np.stack(self._rows)

    @property
    def n_used(self) -> int:
        """Distinct cells."""
        return len({id(cell) for held in self.cells for cell in held})

    def cells_of(self, slot: int) -> int:
        return len(self.cells[slot])

    def trim(self, slot: int, n: int) -> bool:
        if 0 < n < len(self.cells[slot]) and not self.can_trim:
            return False
        del self.cells[slot][n:]
        return True

    def copy(self, source: int, target: int, n: int) -> None:
        assert self.n_cells is not None, "partial copies abort in the split layout"
        assert not self.cells[target]
        self.cells[target] = self.cells[source][:n]

    def save(self, slot: int) -> State:
        return np.array([cell.token for cell in self.cells[slot]], np.int32).view(np.uint8)

    def restore(self, slot: int, state: State) -> None:
        assert not self.cells[slot], "restored over cells"
        tokens = state.view(np.int32).tolist()
        if self.n_cells is not None and self.n_used + len(tokens) > self.n_cells:
            raise NoRoom(f"{self.n_used} of {self.n_cells} cells in use")
        self.cells[slot] = [Cell(token) for token in tokens]


class Bench:
    """An engine over a fake context, and what it has said of each request."""

    def __init__(
        self, context: FakeContext, ram: int = 10_000, n_ubatch: int = 1000, n_draft: int = 15
    ):
        self.context = context
        self.vocabulary = Vocabulary(FakeTokenizer())
        unified = context.n_cells is not None
        self.kv = KVCells(context, unified, context.can_trim, ram)
        self.events: list[Event] = []
        self.engine = Engine(
            context,
            self.vocabulary,
            self.kv,
            prefill_ms=200,
            n_ubatch=n_ubatch,
            n_draft=n_draft,
            one_by_one=not unified,
            emit=self.events.extend,
        )

    def submit(
        self,
        id: int,
        prompt: Ids[int],
        max_tokens: int | None = 8,
        stop: tuple[str, ...] = (),
        sampling: SamplingParams = GREEDY,
        cache_prompt: bool = True,
    ) -> Sequence:
        """Queue a request."""
        return self.add(
            id, GenerateRequest(tuple(prompt), sampling, max_tokens, stop, cache_prompt)
        )

    def add(self, id: int, request: GenerateRequest) -> Sequence:
        """Queue a request as it is."""
        sequence = Sequence(id, request, self.vocabulary, self.context.n_ctx)
        self.engine.add(sequence)
        return sequence

    def step(self) -> None:
        """One step, after which cells and cursors must agree."""
        self.engine.step()
        self.kv.check()

    def run(self, limit: int = 2000) -> None:
        """Step until nothing is left to do."""
        for _ in range(limit):
            if self.engine.idle:
                self.engine.check()
                return
            self.step()
        raise AssertionError(f"not done after {limit} steps")

    def text(self, id: int) -> str:
        """All text of a request."""
        return "".join(
            e.text for e in self.events if e.id == id and isinstance(e, Delta | Finished)
        )

    def finished(self, id: int) -> Finished:
        """How a request ended; its events must be in order, and the counts must add up."""
        events = [event for event in self.events if event.id == id]
        assert isinstance(events[0], Accepted)
        assert not any(isinstance(e, Accepted | Finished | Failed) for e in events[1:-1])
        last = events[-1]
        assert isinstance(last, Finished), last
        counted = sum(e.n_tokens for e in events if isinstance(e, Delta | Finished))
        assert counted == last.n_completion
        return last
