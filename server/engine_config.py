"""How llama.cpp holds one model: the settings that worker processes know too.

Apart from the others, for a worker starts faster without what reads files and the environment.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    field_validator,
)

DRAFTED_ROWS = 32
"""Logits in a forward with drafts: each row is a whole vocabulary wide, and takes its time."""

N_UBATCH = 512
"""What llama.cpp computes at once where nobody says otherwise, in tokens."""

KVQuant = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


def on_off(value: object) -> object:
    """YAML reads a bare on or off as a boolean."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def _one_or_several(value: object) -> object:
    """A bare name stands for a list of one."""
    return (value,) if isinstance(value, str) else value


def _pairs(value: object) -> object:
    """A mapping, or one line, as a list of `key=value`."""
    if isinstance(value, Mapping):
        return tuple(f"{key}={target}" for key, target in cast("_Mapping", value).items())
    return _one_or_several(value)


def _host_port(value: str) -> str:
    """llama.cpp cuts at the first colon, and aborts over what is no number."""
    host, _, port = value.partition(":")
    if not host or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{value!r} is not host:port")
    return value


_Mapping = Mapping[object, object]
RpcServer = Annotated[str, AfterValidator(_host_port)]
OnOff = Annotated[Literal["auto", "on", "off"], BeforeValidator(on_off)]


class Frozen(BaseModel):
    """Made once, and no key unknown. Workers get theirs made, and never need what checks them."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class EngineConfig(Frozen):
    """How llama.cpp holds one model."""

    n_ctx: int | None = Field(
        default=None,
        ge=8,
        description="context of one request, in tokens; null: what the model was trained for, "
        "at most n_ctx_cap",
    )
    n_ctx_cap: int = Field(
        default=8192, ge=8, description="upper end of the default n_ctx, in tokens"
    )
    n_slots: int = Field(default=16, ge=1, le=256, description="requests that run at the same time")
    max_waiting: int = Field(
        default=256, ge=0, description="requests that may wait for a slot; more get a 429"
    )
    n_batch: int = Field(default=2048, ge=1, description="most tokens in one forward")
    n_ubatch: int | None = Field(
        default=None,
        ge=1,
        description="tokens that llama.cpp computes at once; null: 512, or 256 on a CPU without "
        "flash attention",
    )
    n_draft: int = Field(
        default=15,
        ge=0,
        le=DRAFTED_ROWS - 1,
        description="tokens that are guessed and checked in one forward, where a text repeats "
        "itself or its prompt; 0: none",
    )
    prefill_ms: int = Field(
        default=140,
        ge=1,
        description="how long prompts may hold up running streams per step, in milliseconds",
    )
    stream_ms: int = Field(
        default=25,
        ge=0,
        description="tokens of a stream that come within so many milliseconds are sent together; "
        "0: each by itself",
    )
    n_threads: int | None = Field(default=None, ge=1, description="CPU threads; null: one per core")
    kv_quant: KVQuant = Field(
        default="f16",
        description="type of the cached keys (and values): f32, f16, bf16, q8_0, q5_1, q5_0, "
        "q4_1, q4_0 or iq4_nl",
    )
    kv_quant_v: KVQuant | None = Field(
        default=None, description="type of the cached values, one of the same; null: kv_quant"
    )
    kv_layout: Literal["auto", "split", "unified"] = Field(
        default="auto",
        description="split: n_ctx cells for each slot, fastest on a CPU; unified: one pool of "
        "n_cells; auto: split on a CPU if it fits in kv_budget",
    )
    kv_budget: ByteSize | None = Field(
        default=None,
        description="memory for the KV cells; null: half of what is free after loading",
    )
    n_cells: int | None = Field(
        default=None,
        ge=8,
        description="KV cells of the unified pool; null: n_slots x n_ctx, or what kv_budget holds",
    )
    prefix_cache: ByteSize = Field(
        default=ByteSize(512 * 2**20),
        description="RAM for saved prefixes of ended requests, beside those still in slots",
    )
    flash_attn: OnOff = Field(
        default="auto",
        description="flash attention: on, off or auto (off on a CPU with AMX, else what llama.cpp "
        "chooses)",
    )
    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        default="auto",
        description="how a text's embedding comes of its tokens': mean, cls (the first one), last, "
        "or auto (as the model was trained, else mean)",
    )
    mmap: bool = Field(default=True, description="map the file instead of reading it")
    mlock: bool = Field(default=False, description="keep the weights from being swapped out")
    n_gpu_layers: Annotated[int, Field(ge=0)] | Literal["auto", "all"] = Field(
        default="auto", description="layers on the GPU: a number, all, or auto (what fits)"
    )
    devices: Annotated[tuple[str, ...], BeforeValidator(_one_or_several)] = Field(
        default=(),
        description="llama.cpp's names of the GPUs to use, in this order, such as CUDA0; "
        "[]: all of them, none: the CPU alone",
    )
    main_gpu: int = Field(default=0, ge=0, description="the GPU that split_mode none uses")
    split_mode: Literal["none", "layer", "row"] = Field(
        default="layer",
        description="how several GPUs share a model: by layer, by row, or none of it",
    )
    tensor_split: tuple[float, ...] = Field(
        default=(), description="share of the model for each GPU; []: by free memory"
    )
    n_cpu_moe: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        default=0,
        description="mixtures of experts: of how many layers, from the first on, the experts stay "
        "in RAM; or all",
    )
    override_tensors: Annotated[tuple[str, ...], BeforeValidator(_pairs)] = Field(
        default=(),
        description="where single tensors go: regex=buffer type, the regex as C++ has it and "
        "found anywhere in the tensor's name; the first that fits counts; a list, or a mapping",
    )
    kv_offload: bool = Field(
        default=True, description="keep the KV cells of offloaded layers on the GPU"
    )
    op_offload: bool = Field(
        default=True, description="let the GPU compute large batches for layers that are in RAM"
    )
    rpc_servers: Annotated[tuple[RpcServer, ...], BeforeValidator(_one_or_several)] = Field(
        default=(),
        description="other machines' GPUs, as host:port of an rpc-server of the same llama.cpp; "
        "trusted networks only, for it knows no passwords",
    )
    rope_scaling: Literal["none", "linear", "yarn", "longrope"] | None = Field(
        default=None,
        description="how positions are scaled: none, linear, yarn or longrope; null: as the model "
        "says",
    )
    rope_freq_base: float = Field(default=0.0, ge=0, description="RoPE base; 0: as the model says")
    rope_freq_scale: float = Field(
        default=0.0, ge=0, description="RoPE scale; 0: as the model says"
    )
    yarn_ext_factor: float = Field(
        default=-1.0, description="YaRN extrapolation; < 0: as the model says"
    )
    yarn_attn_factor: float = Field(
        default=-1.0, description="YaRN magnitude; < 0: as the model says"
    )
    yarn_beta_fast: float = Field(
        default=-1.0, description="YaRN low dimension; < 0: as the model says"
    )
    yarn_beta_slow: float = Field(
        default=-1.0, description="YaRN high dimension; < 0: as the model says"
    )
    yarn_orig_ctx: int = Field(
        default=0, ge=0, description="YaRN's original context; 0: as the model says"
    )
    use_extra_bufts: bool = Field(
        default=True, description="repack weights for the processor (AMX and others)"
    )

    @property
    def ubatch(self) -> int:
        """Tokens that llama.cpp computes at once."""
        return min(self.n_ubatch or N_UBATCH, self.n_batch)

    @property
    def names_devices(self) -> bool:
        """Whether it says what to compute on beside the CPU; else that is all GPUs."""
        return bool(self.devices or self.rpc_servers)

    @field_validator("tensor_split")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and (min(value) < 0 or sum(value) <= 0):
            raise ValueError("shares must not be negative, and not all 0")
        return value

    @field_validator("devices", "rpc_servers")
    @classmethod
    def _once_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in value if value.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is named twice")
        if "none" in value and len(value) > 1:
            raise ValueError("none stands alone")
        return value

    @field_validator("override_tensors")
    @classmethod
    def _both_sides(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pair in value:
            pattern, _, target = pair.rpartition("=")
            if not pattern or not target:
                raise ValueError(f"{pair!r} is not regex=buffer type")
        return value
