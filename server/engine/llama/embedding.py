"""EmbeddingContext: forwards that give vectors of tokens, or scores of whole texts."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.engine.batch import Batch
from server.engine.llama.backend import C, Owned
from server.engine.llama.context import Binding, address_of, common_params, rows_at
from server.engine.llama.model import Model
from server.engine_config import EngineConfig
from server.errors import EngineError

Vectors = NDArray[np.float32]

N_SLOTS = 32
"""Texts of one forward."""

N_LOGITS = 2**25
"""Logits of one forward, 128 MiB of them: llama.cpp computes them for every token, unasked."""

MIN_UBATCH = 64
PAD = 256
"""Cells come in multiples of this."""


class EmbeddingContext(Owned):
    """A second context of a model, or the only one of a model that does not generate.

    It holds at least `n_cells` tokens, of up to N_SLOTS texts. For one thread at a time. Where
    attention looks forward, or a head scores the whole, a text must not be cut over forwards.
    """

    def __init__(self, model: Model, config: EngineConfig, n_cells: int):
        """Raises EngineError, if there is no memory for that many cells."""
        self.can_cut = model.is_causal and not model.ranks
        n_ubatch = n_cells
        if self.can_cut:
            n_ubatch = min(config.ubatch, max(MIN_UBATCH, N_LOGITS // model.vocabulary.n_tokens))
            # So that others fit beside one that is cut.
            n_cells += n_ubatch
        n_cells = -(-n_cells // PAD) * PAD
        params = common_params(config)
        params.n_ctx = n_cells
        params.n_batch = params.n_ubatch = n_ubatch if self.can_cut else n_cells
        params.n_seq_max = N_SLOTS
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = (
            C.LLAMA_POOLING_TYPE_RANK if model.ranks else C.LLAMA_POOLING_TYPE_NONE
        )
        self._log = model.log
        super().__init__(C.llama_init_from_model(model.pointer, params), C.llama_free)
        if not self.pointer:
            raise EngineError(f"no context of {n_cells} cells: {self._log.reason()}")
        self._memory: Any = C.llama_get_memory(self.pointer)
        self.n_cells = n_cells
        self.n_slots = N_SLOTS
        self.n_batch: int = C.llama_n_batch(self.pointer)
        self._n_embd = model.n_embd
        self._n_scores: int = C.llama_model_n_cls_out(model.pointer)
        self._binding = Binding()

    def forward(self, batch: Batch) -> None:
        """Compute the batch, all tokens of which must be rows. Raises EngineError."""
        assert 0 < batch.n_tokens == batch.n_rows <= self.n_batch
        # Where a model keeps no cells, this encodes.
        code = C.llama_decode(self.pointer, self._binding.to(batch))
        if code:
            raise EngineError(
                f"llama_decode returned {code} for {batch.n_tokens} tokens: {self._log.reason()}"
            )

    def use_threads(self, n: int) -> None:
        """Compute with so many from the next forward on."""
        C.llama_set_n_threads(self.pointer, n, n)

    def rows(self, n_rows: int) -> Vectors:
        """The last forward's vectors, [n_rows, n_embd]; a view that the next one overwrites."""
        return rows_at(address_of(C.llama_get_embeddings(self.pointer)), n_rows, self._n_embd)

    def scores(self, slot: int) -> list[float]:
        """What the ranking head gave a slot of the last forward."""
        found = C.llama_get_embeddings_seq(self.pointer, slot)
        assert found, f"the last forward gave no score to slot {slot}"
        return found[: self._n_scores]

    def drop(self, slot: int) -> None:
        """Forget a slot's tokens."""
        assert 0 <= slot < self.n_slots
        if self._memory:
            C.llama_memory_seq_rm(self._memory, slot, -1, -1)
