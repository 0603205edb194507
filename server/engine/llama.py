"""llama.cpp as objects that free themselves: the only importer of llama_cpp.

Return codes become exceptions here and nowhere else. What would abort the process (a batch that
is too large, a slot out of range, logits of a row that has none) is checked before the call.

Deliberate oddities:
* `Any` and pyright's ignores are allowed in this module: ctypes has no useful types.
* The low-level API is used, never the class `Llama`, which holds one sequence.
* Texts for the tokenizer may hold NUL characters: lengths are passed, not terminators.
"""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import ctypes
import logging
import os
import re
from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

import numpy as np
import psutil
from llama_cpp import _ggml
from llama_cpp import llama_cpp as bindings
from numpy.typing import NDArray

from server.config import EngineConfig
from server.engine.batch import Batch, Tokens
from server.errors import EngineError, ModelLoadError

log = logging.getLogger(__name__)

C: Any = bindings

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
SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
ROPE_SCALING = {None: -1, "none": 0, "linear": 1, "yarn": 2, "longrope": 3}
FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
LOAD_MODES = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
"""(mmap, mlock) -> llama_load_mode."""

LOG_ERROR = 4
DEVICE_GPU, DEVICE_IGPU = 1, 2


class NoRoom(Exception):
    """The KV cells do not hold the batch; nothing has changed."""


class Log:
    """llama.cpp's log: errors are kept as the reason of what fails next."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=8)
        # The callback must live as long as llama.cpp may call it.
        self._callback = C.llama_log_callback(self._take)
        C.llama_log_set(self._callback, None)

    def _take(self, level: int, text: bytes, _data: Any) -> None:
        line = text.decode(errors="replace").strip()
        if level == LOG_ERROR and line:
            self._errors.append(line)
        log.debug("llama.cpp: %s", line)

    def reason(self) -> str:
        """What went wrong since the last call, in llama.cpp's words."""
        lines = [re.sub(r"^\w+: ", "", line) for line in self._errors]
        self._errors.clear()
        return "; ".join(dict.fromkeys(lines)) or "llama.cpp gave no reason"


def backend_init() -> Log:
    """Prepare llama.cpp. Once per process; keep what it returns."""
    captured = Log()
    C.llama_backend_init()
    return captured


def gpu_memory() -> list[int]:
    """Free bytes of each GPU that llama.cpp can use; empty without one."""
    ggml: Any = _ggml.libggml
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    size_p = ctypes.POINTER(ctypes.c_size_t)
    base: Any = ctypes.CDLL(None) if not hasattr(ggml, "ggml_backend_dev_memory") else ggml
    base.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size_p, size_p]
    base.ggml_backend_dev_memory.restype = None
    base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    found: list[int] = []
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        if base.ggml_backend_dev_type(device) in (DEVICE_GPU, DEVICE_IGPU):
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            found.append(free.value)
    return found


class Model:
    """An open GGUF. Raises ModelLoadError with llama.cpp's own reason."""

    def __init__(
        self,
        path: str,
        config: EngineConfig,
        n_gpu_layers: int,
        log: Log,
        on_progress: Callable[[float], None],
        sizes_only: bool = False,
    ):
        """With `sizes_only` no weights are read, and no context can be made."""
        params = C.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.split_mode = SPLIT_MODES[config.split_mode]
        params.main_gpu = config.main_gpu
        params.load_mode = LOAD_MODES[config.mmap, config.mlock]
        params.use_extra_bufts = config.use_extra_bufts
        if sizes_only:
            # Any other load mode aborts the process.
            params.no_alloc, params.load_mode = True, LOAD_MODES[False, False]
        self._split = (ctypes.c_float * C.llama_max_devices())(*config.tensor_split)
        if config.tensor_split:
            params.tensor_split = self._split

        def progress(done: float, _data: Any) -> bool:
            on_progress(done)
            return True

        self._progress = C.llama_progress_callback(progress)
        params.progress_callback = self._progress
        self.pointer: Any = C.llama_model_load_from_file(path.encode(), params)
        if not self.pointer:
            raise ModelLoadError(f"cannot load {path}: {log.reason()}")
        self.log = log
        self.n_gpu_layers = n_gpu_layers
        self.vocabulary = RawVocabulary(self.pointer)
        self.n_layer: int = C.llama_model_n_layer(self.pointer)
        self.n_ctx_train: int = C.llama_model_n_ctx_train(self.pointer)
        self.n_params: int = C.llama_model_n_params(self.pointer)
        self.size_bytes: int = C.llama_model_size(self.pointer)
        if not self.size_bytes:
            self.close()
            raise ModelLoadError(f"cannot serve {path}: it holds a vocabulary but no weights")
        if not C.llama_model_has_decoder(self.pointer):
            self.close()
            raise ModelLoadError(f"cannot serve {path}: the model does not generate text")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the weights. Contexts must be closed before."""
        if self.pointer:
            C.llama_model_free(self.pointer)
            self.pointer = None

    @cached_property
    def description(self) -> str:
        """Architecture, size and quant, such as `llama 135M Q4_1`."""
        buffer = ctypes.create_string_buffer(256)
        C.llama_model_desc(self.pointer, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    @cached_property
    def template(self) -> str | None:
        """The chat template in the GGUF's metadata."""
        found = C.llama_model_chat_template(self.pointer, None)
        return found.decode(errors="replace") if found else None

    def kv_bytes_per_token(self, bytes_k: float, bytes_v: float) -> int:
        """Bytes of one token's K and V over all layers, for the given bytes per element.

        An upper bound: layers with a sliding window or a recurrent state need less.
        """
        n_head: int = C.llama_model_n_head(self.pointer)
        n_head_kv: int = C.llama_model_n_head_kv(self.pointer)
        width = C.llama_model_n_embd(self.pointer) // max(n_head, 1) * n_head_kv
        return int(self.n_layer * width * (bytes_k + bytes_v))


class RawVocabulary:
    """The tokenizer of an open model. Safe to use from any thread."""

    def __init__(self, model: Any):
        self._pointer: Any = C.llama_model_get_vocab(model)
        self.n_tokens: int = C.llama_vocab_n_tokens(self._pointer)
        self.bos: int = C.llama_vocab_bos(self._pointer)
        self.eos: int = C.llama_vocab_eos(self._pointer)
        self.adds_bos: bool = C.llama_vocab_get_add_bos(self._pointer)

    @property
    def pointer(self) -> Any:
        """For samplers that look at texts."""
        return self._pointer

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return C.llama_vocab_is_eog(self._pointer, token)

    def is_control(self, token: int) -> bool:
        """Whether the token steers the model and is no text."""
        return C.llama_vocab_is_control(self._pointer, token)

    def text(self, token: int) -> str:
        """The token as it stands in the vocabulary; empty for -1, which is no token."""
        if token < 0:
            return ""
        return C.llama_vocab_get_text(self._pointer, token).decode(errors="replace")

    def piece(self, token: int) -> bytes:
        """The bytes that a generated token adds to the text; none for control tokens."""
        buffer = ctypes.create_string_buffer(64)
        n = C.llama_token_to_piece(self._pointer, token, buffer, len(buffer), 0, False)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = C.llama_token_to_piece(self._pointer, token, buffer, -n, 0, False)
        return buffer.raw[:n]

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> Tokens:
        """Token ids of a text; BOS is added, and control tokens are recognised, if asked."""
        raw = text.encode(errors="replace")
        tokens = np.empty(len(raw) + 8, np.int32)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(C.llama_token))
        n = C.llama_tokenize(
            self._pointer, raw, len(raw), pointer, len(tokens), add_special, parse_special
        )
        if n < 0:
            raise EngineError(f"llama.cpp cannot tokenize {len(raw)} bytes (code {n})")
        return tokens[:n]


class Context:
    """The KV cells of a model and the forwards over them. For one thread at a time.

    `n_ctx` is the context of one slot. Split layout: every slot has that many cells of its own;
    unified: all slots share `n_cells`.
    """

    def __init__(self, model: Model, config: EngineConfig, n_ctx: int, n_cells: int | None):
        params = C.llama_context_default_params()
        # Less than a cell and a row for each slot aborts the process.
        n_cells_all = n_ctx * config.n_slots if n_cells is None else n_cells
        params.n_ctx = max(n_cells_all, config.n_slots)
        params.n_batch = max(config.n_batch, config.n_slots)
        params.n_ubatch = min(config.n_ubatch, config.n_batch)
        params.n_seq_max = config.n_slots
        params.kv_unified = n_cells is not None
        params.n_threads = params.n_threads_batch = config.n_threads or default_threads()
        params.flash_attn_type = FLASH_ATTN[config.flash_attn]
        params.type_k = KV_TYPES[config.kv_quant]
        params.type_v = KV_TYPES[config.kv_quant_v or config.kv_quant]
        params.offload_kqv = config.offload_kqv
        params.rope_scaling_type = ROPE_SCALING[config.rope_scaling]
        params.rope_freq_base = config.rope_freq_base
        params.rope_freq_scale = config.rope_freq_scale
        params.yarn_ext_factor = config.yarn_ext_factor
        params.yarn_attn_factor = config.yarn_attn_factor
        params.yarn_beta_fast = config.yarn_beta_fast
        params.yarn_beta_slow = config.yarn_beta_slow
        params.yarn_orig_ctx = config.yarn_orig_ctx
        params.no_perf = True
        self._log = model.log
        self.pointer: Any = C.llama_init_from_model(model.pointer, params)
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
        self._bound: tuple[Batch, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the cells."""
        if self.pointer:
            C.llama_free(self.pointer)
            self.pointer = None

    def forward(self, batch: Batch) -> None:
        """Compute the batch. Raises NoRoom, with nothing changed, or EngineError."""
        assert 0 < batch.n_tokens <= self.n_batch
        code = C.llama_decode(self.pointer, self._bind(batch))
        if code == 1:
            raise NoRoom(f"no cells for {batch.n_tokens} tokens")
        if code:
            raise EngineError(f"llama_decode returned {code}: {self._log.reason()}")

    def logits(self, n_rows: int) -> Logits:
        """The last forward's logits, [n_rows, n_vocab]; a view that the next forward overwrites."""
        address = ctypes.cast(C.llama_get_logits(self.pointer), ctypes.c_void_p).value
        assert address, "the last forward asked for no logits"
        raw: Any = (ctypes.c_float * (n_rows * self.n_vocab)).from_address(address)
        return np.frombuffer(raw, np.float32).reshape(n_rows, self.n_vocab)

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

    def _bind(self, batch: Batch) -> Any:
        """The C struct over the batch's arrays, made once."""
        if self._bound is None or self._bound[0] is not batch:
            self._bound = (batch, _Bound(batch))
        bound = self._bound[1]
        bound.struct.n_tokens = batch.n_tokens
        return bound.struct


class _Bound:
    """A llama_batch whose arrays are those of a Batch; each token belongs to one slot."""

    def __init__(self, batch: Batch):
        capacity = len(batch.token)
        step = batch.slot.itemsize
        self._ones = np.ones(capacity, np.int32)
        self._slots = batch.slot.ctypes.data + step * np.arange(capacity, dtype=np.uintp)
        int32_p, int8_p = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int8)
        self.struct = C.llama_batch(
            n_tokens=0,
            token=batch.token.ctypes.data_as(int32_p),
            pos=batch.pos.ctypes.data_as(int32_p),
            n_seq_id=self._ones.ctypes.data_as(int32_p),
            seq_id=self._slots.ctypes.data_as(ctypes.POINTER(int32_p)),
            logits=batch.wants_logits.ctypes.data_as(int8_p),
        )


CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""


class Chain:
    """A sampler chain over the stages given, freed with them."""

    def __init__(self, stages: list[Any]):
        self._pointer: Any = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        for stage in stages:
            # A stage that could not be made is a null pointer, which the chain would follow.
            assert stage, "llama.cpp made no sampler"
            C.llama_sampler_chain_add(self._pointer, stage)

    def __del__(self) -> None:
        if self._pointer:
            C.llama_sampler_free(self._pointer)
            self._pointer = None

    def pick(self, candidates: NDArray[Any]) -> int:
        """Choose one of the candidates (of type CANDIDATE, reordered in place) and accept it."""
        array = C.llama_token_data_array(
            data=candidates.ctypes.data_as(C.llama_token_data_p),
            size=len(candidates),
            selected=-1,
            sorted=False,
        )
        C.llama_sampler_apply(self._pointer, ctypes.byref(array))
        token = array.data[array.selected].id
        C.llama_sampler_accept(self._pointer, token)
        return token

    def accept(self, token: int) -> None:
        """Take note of a token that was not chosen here, such as the prompt's."""
        C.llama_sampler_accept(self._pointer, token)


def dry(
    vocabulary: Any,
    multiplier: float,
    base: float,
    allowed_length: int,
    last_n: int,
    breakers: tuple[str, ...],
) -> Any:
    """The DRY sampler; `vocabulary` is a RawVocabulary's pointer, `last_n` counts tokens."""
    texts = (ctypes.c_char_p * len(breakers))(*(text.encode(errors="replace") for text in breakers))
    return C.llama_sampler_init_dry(
        vocabulary, multiplier, base, allowed_length, last_n, texts, len(breakers)
    )


def mirostat(n_vocab: int, seed: int, tau: float, eta: float) -> Any:
    """Mirostat 1, with the 100 tokens of its paper for the estimate."""
    return C.llama_sampler_init_mirostat(n_vocab, seed, tau, eta, 100)


def top_p(p: float) -> Any:
    """Nucleus sampling."""
    return C.llama_sampler_init_top_p(p, 1)


def min_p(p: float) -> Any:
    """Drop what is below this share of the best."""
    return C.llama_sampler_init_min_p(p, 1)


def typical(p: float) -> Any:
    """Locally typical sampling."""
    return C.llama_sampler_init_typical(p, 1)


def xtc(probability: float, threshold: float, seed: int) -> Any:
    """Exclude top choices."""
    return C.llama_sampler_init_xtc(probability, threshold, 1, seed)


greedy = C.llama_sampler_init_greedy
top_k = C.llama_sampler_init_top_k
top_n_sigma = C.llama_sampler_init_top_n_sigma
temperature = C.llama_sampler_init_temp
dynamic_temperature = C.llama_sampler_init_temp_ext
mirostat_v2 = C.llama_sampler_init_mirostat_v2
adaptive_p = C.llama_sampler_init_adaptive_p
draw = C.llama_sampler_init_dist


def default_threads() -> int:
    """One thread for each core that we may use."""
    cores = psutil.cpu_count(logical=False) or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return max(1, min(cores, allowed))
