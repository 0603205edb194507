"""Model: an open GGUF."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false, reportPrivateUsage=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import Any

from server.engine.llama.backend import C, Log, Owned
from server.engine.llama.devices import Devices
from server.engine.llama.overrides import overrides
from server.engine.llama.vocabulary import RawVocabulary
from server.engine_config import EngineConfig
from server.errors import ModelLoadError
from server.estimate import KV_BYTES

SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
POOLING = {"1": "mean", "2": "cls", "3": "last", "4": "rank"}
"""llama_pooling_type, as metadata. No pooling at all gives no vector of a text."""
BIDIRECTIONAL = frozenset({"gemma-embedding"})
"""Architectures whose attention looks forward without a word of it in the metadata."""
LOAD_MODES = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
"""(mmap, mlock) -> llama_load_mode."""


class Settings:
    """A llama_model_params with all that it points to, which llama.cpp may use until it is freed.

    Raises ModelLoadError for an override to a buffer type that does not exist.
    """

    def __init__(
        self, config: EngineConfig, devices: Devices, on_progress: Callable[[float], None]
    ):
        self.params = params = C.llama_model_default_params()
        params.split_mode = SPLIT_MODES[config.split_mode]
        params.main_gpu = config.main_gpu
        params.load_mode = LOAD_MODES[config.mmap, config.mlock]
        params.use_extra_bufts = config.use_extra_bufts
        self._devices = devices.pointers
        params.devices = ctypes.cast(self._devices, ctypes.c_void_p)
        self._overrides = overrides(config, devices.buffer_types)
        if self._overrides is not None:
            params.tensor_buft_overrides = ctypes.cast(self._overrides, ctypes.c_void_p)
        self._split = (ctypes.c_float * C.llama_max_devices())(*config.tensor_split)
        if config.tensor_split:
            params.tensor_split = self._split

        def progress(done: float, _data: Any) -> bool:
            on_progress(done)
            return True

        self._progress = C.llama_progress_callback(progress)
        params.progress_callback = self._progress


class Model(Owned):
    """An open GGUF, closed after its contexts. Raises ModelLoadError with llama.cpp's reason."""

    def __init__(
        self,
        path: str,
        config: EngineConfig,
        n_gpu_layers: int,
        log: Log,
        on_progress: Callable[[float], None],
        sizes_only: bool = False,
        devices: Devices | None = None,
    ):
        """With `sizes_only` no weights are read, and no context can be made.

        `devices` stay open for as long as the model; None: those of `config`, opened here.
        """
        self._own = ExitStack()
        self.devices = devices or self._own.enter_context(Devices(config))
        self._settings = Settings(config, self.devices, on_progress)
        params = self._settings.params
        params.n_gpu_layers = n_gpu_layers
        if sizes_only:
            # Any other load mode aborts the process.
            params.no_alloc, params.load_mode = True, LOAD_MODES[False, False]
        log.forget_buffers()
        super().__init__(C.llama_model_load_from_file(path.encode(), params), C.llama_model_free)
        if not self.pointer:
            self.close()
            raise ModelLoadError(f"cannot load {path}: {log.reason()}")
        self.log = log
        self._pooling = None if config.pooling == "auto" else config.pooling
        self.n_gpu_layers = n_gpu_layers
        self.vocabulary = RawVocabulary(self.pointer)
        self.n_layer: int = C.llama_model_n_layer(self.pointer)
        self.n_ctx_train: int = C.llama_model_n_ctx_train(self.pointer)
        self.n_params: int = C.llama_model_n_params(self.pointer)
        self.size_bytes: int = C.llama_model_size(self.pointer)
        if not self.size_bytes:
            self.close()
            raise ModelLoadError(f"cannot serve {path}: it holds a vocabulary but no weights")
        self.n_embd: int = C.llama_model_n_embd_out(self.pointer)

    def close(self) -> None:
        """Free it, and let go of devices that were opened for it alone."""
        super().close()
        self._own.close()

    @property
    def memory(self) -> tuple[tuple[str, int], ...]:
        """Bytes of weights, cells and buffers on each device, the CPU first, as llama.cpp logs."""
        return self.devices.memory(self.log.buffers)

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

    def template_for(self, purpose: str) -> str | None:
        """The chat template for a purpose, such as `tool_use`, if there is one beside the other."""
        found = C.llama_model_chat_template(self.pointer, purpose.encode())
        return found.decode(errors="replace") if found else None

    def metadata(self, key: str) -> str | None:
        """A value of the GGUF's metadata as text, numbers and booleans too; None without it."""
        buffer = ctypes.create_string_buffer(256)
        n = C.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return None if n < 0 else buffer.value.decode(errors="replace")

    def _of_architecture(self, key: str) -> str | None:
        return self.metadata(f"{self.metadata('general.architecture')}.{key}")

    @property
    def n_experts(self) -> int:
        """Experts of each layer; 0 where there is no such choice."""
        return int(self._of_architecture("expert_count") or 0)

    @cached_property
    def is_causal(self) -> bool:
        """Whether a token's vector depends on earlier tokens alone."""
        if self.metadata("general.architecture") in BIDIRECTIONAL:
            return False
        if not C.llama_model_has_decoder(self.pointer) or C.llama_model_is_diffusion(self.pointer):
            return False
        return self._of_architecture("attention.causal") != "false"

    @cached_property
    def trained_pooling(self) -> str | None:
        """How the model was trained to sum a text up, None if it was not: mean, cls, last, rank."""
        return POOLING.get(self._of_architecture("pooling_type") or "")

    @cached_property
    def pooling(self) -> str:
        """How a text's vector comes of its tokens': as configured, as trained, or their mean."""
        return self._pooling or self.trained_pooling or "mean"

    @property
    def ranks(self) -> bool:
        """Whether it tells how well a document answers a query."""
        return self.pooling == "rank"

    @property
    def embeds(self) -> bool:
        """Whether it gives vectors of texts."""
        has_both = C.llama_model_has_encoder(self.pointer) and C.llama_model_has_decoder(
            self.pointer
        )
        return not self.ranks and not has_both

    @cached_property
    def has_learned_positions(self) -> bool:
        """Whether there is a vector for each position, and none behind the last."""
        return C.llama_model_rope_type(self.pointer) == C.LLAMA_ROPE_TYPE_NONE

    @property
    def generates(self) -> bool:
        """Whether it continues texts. One that was trained to sum them up is not asked to."""
        return self.is_causal and self.trained_pooling is None

    @cached_property
    def rerank_template(self) -> str | None:
        """How a {query} and a {document} are put together, if the GGUF says."""
        return self.template_for("rerank")

    def bytes_per_cell(self, config: EngineConfig) -> int:
        """K and V of one token over all layers, in the types of the settings.

        An upper bound: layers with a sliding window or a recurrent state need less.
        """
        n_head: int = C.llama_model_n_head(self.pointer)
        n_head_kv: int = C.llama_model_n_head_kv(self.pointer)
        width = C.llama_model_n_embd(self.pointer) // max(n_head, 1) * n_head_kv
        bytes_v = KV_BYTES[config.kv_quant_v or config.kv_quant]
        return int(self.n_layer * width * (KV_BYTES[config.kv_quant] + bytes_v))
