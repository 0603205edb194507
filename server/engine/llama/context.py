"""Context: the KV cells of a model and the forwards over them."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.engine.batch import Batch
from server.engine.llama import pages
from server.engine.llama.backend import C, Owned
from server.engine.llama.model import Model
from server.engine_config import EngineConfig
from server.errors import EngineError, ModelLoadError
from server.layout import slot_cells
from server.threads import cores

Logits = NDArray[np.float32]
State = NDArray[np.uint8]

KV_TYPES = {
    "f32": C.GGML_TYPE_F32,
    "f16": C.GGML_TYPE_F16,
    "bf16": 30,
    "q8_0": C.GGML_TYPE_Q8_0,
    "q5_1": C.GGML_TYPE_Q5_1,
    "q5_0": C.GGML_TYPE_Q5_0,
    "q4_1": C.GGML_TYPE_Q4_1,
    "q4_0": C.GGML_TYPE_Q4_0,
    "iq4_nl": C.GGML_TYPE_IQ4_NL,
}
ROPE_SCALING = {None: -1, "none": 0, "linear": 1, "yarn": 2, "longrope": 3}
FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}


class NoRoom(Exception):
    """The KV cells do not hold the batch; nothing has changed."""


class Context(Owned):
    """The KV cells of a model and the forwards over them. For one thread at a time.

    `n_ctx` is the context of one slot. Split layout: every slot has that many cells of its own;
    unified: all slots share `n_cells`.
    """

    def __init__(self, model: Model, config: EngineConfig, n_ctx: int, n_cells: int | None):
        params = common_params(config)
        # Less than a cell and a row for each slot aborts the process.
        n_cells_all = slot_cells(config, n_ctx) * config.n_slots if n_cells is None else n_cells
        params.n_ctx = max(n_cells_all, config.n_slots)
        params.n_batch = max(config.n_batch, config.n_slots)
        params.n_ubatch = config.ubatch
        params.n_seq_max = config.n_slots
        params.kv_unified = n_cells is not None
        params.type_k = KV_TYPES[config.kv_quant]
        params.type_v = KV_TYPES[config.kv_quant_v or config.kv_quant]
        self._log = model.log
        with pages.coming(_cells_in_ram(model, config, params.n_ctx)) as addresses:
            pointer = C.llama_init_from_model(model.pointer, params)
        # Flash attention reads cells in their order, and is not faster in larger pages.
        self._chores = pages.put_together(addresses if config.flash_attn == "off" else range(0))
        super().__init__(pointer, C.llama_free)
        if not self.pointer:
            raise ModelLoadError(
                f"no context of {params.n_ctx} cells for {config.n_slots} slots: "
                f"{self._log.reason()}"
            )
        self._memory: Any = C.llama_get_memory(self.pointer)
        self.n_slots: int = config.n_slots
        self.n_batch: int = C.llama_n_batch(self.pointer)
        self.n_vocab: int = model.vocabulary.n_tokens
        self.n_ctx: int = min(n_ctx, C.llama_n_ctx_seq(self.pointer))
        self.n_cells: int = C.llama_n_ctx(self.pointer)
        self._binding = Binding()
        self._logits_at = (0, 0)
        """Where `_logits` look, and their number of rows."""
        self._logits: Logits

    def forward(self, batch: Batch) -> None:
        """Compute the batch. Raises NoRoom, with nothing changed, or EngineError."""
        assert 0 < batch.n_tokens <= self.n_batch
        code = C.llama_decode(self.pointer, self._binding.to(batch))
        if code == 1:
            raise NoRoom(f"no cells for {batch.n_tokens} tokens")
        if code:
            raise EngineError(f"llama_decode returned {code}: {self._log.reason()}")

    def settle(self) -> bool:
        """Spend some milliseconds on faster steps later; False when there is nothing left to do."""
        return next(self._chores, self) is None

    def use_threads(self, n: int) -> None:
        """Compute with so many from the next forward on."""
        C.llama_set_n_threads(self.pointer, n, n)

    def logits(self, n_rows: int) -> Logits:
        """The last forward's logits, [n_rows, n_vocab]; a view that the next forward overwrites."""
        address = address_of(C.llama_get_logits(self.pointer))
        # The same as in the step before, nearly always; making a view takes a while.
        if (address, n_rows) != self._logits_at:
            self._logits_at = address, n_rows
            self._logits = rows_at(address, n_rows, self.n_vocab)
        return self._logits

    def cells_of(self, slot: int) -> int:
        """Tokens that a slot holds."""
        return C.llama_memory_seq_pos_max(self._memory, slot) + 1

    def trim(self, slot: int, n: int) -> bool:
        """Keep a slot's first `n` tokens. False where the model cannot drop a part."""
        assert 0 <= slot < self.n_slots
        return C.llama_memory_seq_rm(self._memory, slot, n, -1)

    def copy(self, source: int, target: int, n: int) -> None:
        """Let an empty `target` share `source`'s first `n` tokens. Unified layout only."""
        assert 0 <= source < self.n_slots
        assert 0 <= target < self.n_slots
        C.llama_memory_seq_cp(self._memory, source, target, 0, n)

    def save(self, slot: int) -> State:
        """A slot's cells as bytes."""
        size = C.llama_state_seq_get_size(self.pointer, slot)
        state = np.empty(size, np.uint8)
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        n = C.llama_state_seq_get_data(self.pointer, pointer, size, slot)
        if n != size:
            raise EngineError(f"slot {slot} gave {n} of {size} bytes: {self._log.reason()}")
        return state

    def restore(self, slot: int, state: State) -> None:
        """Fill an empty slot from saved cells. Raises NoRoom."""
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if not C.llama_state_seq_set_data(self.pointer, pointer, len(state), slot):
            raise NoRoom(f"saved cells do not fit into slot {slot}: {self._log.reason()}")


def _cells_in_ram(model: Model, config: EngineConfig, n_cells: int) -> int:
    """Bytes of their K and V; 0 where they are on a GPU, or not as many as there are tokens."""
    on_gpu = model.n_gpu_layers > 0 and config.kv_offload
    if (
        on_gpu
        or C.llama_model_is_recurrent(model.pointer)
        or C.llama_model_is_hybrid(model.pointer)
    ):
        return 0
    return n_cells * model.bytes_per_cell(config)


def common_params(config: EngineConfig) -> Any:
    """What all contexts of a model have in common: threads, attention and positions."""
    params = C.llama_context_default_params()
    params.n_threads = params.n_threads_batch = config.n_threads or cores()
    params.flash_attn_type = FLASH_ATTN[config.flash_attn]
    params.offload_kqv = config.kv_offload
    params.op_offload = config.op_offload
    params.rope_scaling_type = ROPE_SCALING[config.rope_scaling]
    params.rope_freq_base = config.rope_freq_base
    params.rope_freq_scale = config.rope_freq_scale
    params.yarn_ext_factor = config.yarn_ext_factor
    params.yarn_attn_factor = config.yarn_attn_factor
    params.yarn_beta_fast = config.yarn_beta_fast
    params.yarn_beta_slow = config.yarn_beta_slow
    params.yarn_orig_ctx = config.yarn_orig_ctx
    params.no_perf = True
    return params


def address_of(pointer: Any) -> int:
    """Where llama.cpp has put what it computed."""
    address = ctypes.cast(pointer, ctypes.c_void_p).value
    assert address, "the last forward was not asked for this"
    return address


def rows_at(address: int, n_rows: int, n_columns: int) -> NDArray[np.float32]:
    """A view of what is there, [n_rows, n_columns]."""
    raw: Any = (ctypes.c_float * (n_rows * n_columns)).from_address(address)
    return np.frombuffer(raw, np.float32).reshape(n_rows, n_columns)


class Binding:
    """The llama_batch over a Batch's arrays, made once as long as it is the same Batch."""

    def __init__(self) -> None:
        self._batch: Batch | None = None

    def to(self, batch: Batch) -> Any:
        """The struct, with as many tokens as the batch has now."""
        if self._batch is not batch:
            self._batch = batch
            self._make(batch)
        self._struct.n_tokens = batch.n_tokens
        return self._struct

    def _make(self, batch: Batch) -> None:
        """Each token belongs to one slot."""
        capacity = len(batch.token)
        step = batch.slot.itemsize
        self._ones = np.ones(capacity, np.int32)
        self._slots = batch.slot.ctypes.data + step * np.arange(capacity, dtype=np.uintp)
        int32_p, int8_p = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int8)
        self._struct = C.llama_batch(
            n_tokens=0,
            token=batch.token.ctypes.data_as(int32_p),
            pos=batch.pos.ctypes.data_as(int32_p),
            n_seq_id=self._ones.ctypes.data_as(int32_p),
            seq_id=self._slots.ctypes.data_as(ctypes.POINTER(int32_p)),
            logits=batch.wants_logits.ctypes.data_as(int8_p),
        )
