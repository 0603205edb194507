"""Every setting, as frozen pydantic models that are made once at start and passed in.

Every key has a description, which is also its comment in `config.yaml` (`example.py` writes it).
`config_file.py` reads them.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    SettingsConfigDict,
)

from server.sampling import SamplingParams

KVQuant = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]

DialectName = Literal[
    "bagel",
    "bagel_yaml",
    "command_r",
    "command_r_action",
    "deepseek",
    "deepseek_v31",
    "functionary_v31",
    "functionary_v32",
    "functiongemma",
    "gemma",
    "generic",
    "gpt_oss",
    "granite",
    "hermes",
    "llama3",
    "mistral",
    "mistral_args",
    "qwen3_coder",
    "seed_oss",
]


class ConfigError(Exception):
    """The configuration cannot be used; the message names every key at fault."""


def _on_off(value: object) -> object:
    """YAML reads a bare on or off as a boolean."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def _section(value: object) -> object:
    """A section whose keys are all commented out reads as nothing."""
    return {} if value is None else value


def _folders(value: object) -> object:
    """One folder, or several as in PATH."""
    if isinstance(value, str):
        return [part for part in value.split(os.pathsep) if part]
    return () if value is None else value


def _sizes(value: object) -> object:
    """One size, or several."""
    return [value] if isinstance(value, str | int) else () if value is None else value


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
OnOff = Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_off)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineConfig(_Frozen):
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
    n_ubatch: int = Field(default=512, ge=1, description="tokens that llama.cpp computes at once")
    prefill_ms: int = Field(
        default=160,
        ge=1,
        description="how long prompts may hold up running streams per step, in milliseconds",
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


class ModelConfig(_Frozen):
    """One model of the pool."""

    path: Path = Field(
        description="a GGUF file, or the first of its parts, relative to this file's folder"
    )
    aliases: tuple[str, ...] = Field(
        default=(), description="other names that requests may ask for it by"
    )
    preload: bool = Field(default=False, description="load at start, not at the first request")
    pinned: bool = Field(
        default=False, description="never unloaded to make room for another, nor for being idle"
    )
    idle_unload_s: float | None = Field(
        default=None,
        ge=0,
        description="seconds without a request after which the model is unloaded; null: as "
        "pool.idle_unload_s says, 0: never",
    )
    engine: EngineConfig = Field(
        default=EngineConfig(), description="how llama.cpp holds the model"
    )
    sampling: SamplingParams = Field(
        default=SamplingParams(), description="defaults for requests that set none"
    )
    template: str | None = Field(
        default=None,
        description="chat template: a name of templates/ or a .jinja file; null: the GGUF's own",
    )
    dialect: DialectName | None = Field(
        default=None,
        description="how the model writes tool calls: bagel, bagel_yaml, command_r, "
        "command_r_action, deepseek, deepseek_v31, functionary_v31, functionary_v32, "
        "functiongemma, gemma, generic, gpt_oss, granite, hermes, llama3, mistral, mistral_args, "
        "qwen3_coder or seed_oss; null: as its template says",
    )


class FoundConfig(_Frozen):
    """What models have in common that are found, not configured."""

    engine: EngineConfig = Field(
        default=EngineConfig(), description="how llama.cpp holds them; keys as in models.ID.engine"
    )
    sampling: SamplingParams = Field(
        default=SamplingParams(),
        description="defaults for requests that set none; keys as in models.ID.sampling",
    )


class ServerConfig(_Frozen):
    """The HTTP side."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="how much is logged: debug, info, warning or error"
    )
    unknown_fields: Literal["warn", "strict", "lax"] = Field(
        default="warn",
        description="request fields that are not served: warn (header x-corral-ignored and a log "
        "line), strict (400) or lax (ignored)",
    )
    max_body: ByteSize = Field(default=ByteSize(16 * 2**20), description="largest request body")
    load_wait_s: float = Field(
        default=60.0,
        ge=0,
        description="seconds that a request waits for its model to load before a 503",
    )
    ping_s: int = Field(
        default=15,
        ge=0,
        description="seconds between SSE comments on a silent stream; 0 sends none",
    )
    store: Path | None = Field(
        default=None,
        description="SQLite file that keeps the answers of /v1/responses, for "
        "previous_response_id, background and GET; relative to this file's folder; null: none "
        "are kept",
    )
    store_budget: ByteSize = Field(
        default=ByteSize(256 * 2**20),
        description="bytes of answers in the store; those not used for longest go first",
    )


class PoolConfig(_Frozen):
    """Which models are loaded, and for how long."""

    ram_budget: ByteSize | None = Field(
        default=None,
        description="memory for all loaded models; null: what is free, less a twentieth of all",
    )
    gpu_budget: Annotated[tuple[ByteSize, ...], BeforeValidator(_sizes)] = Field(
        default=(),
        description="memory of each GPU for all loaded models, one size or a list; null: what is "
        "free at start, less a twentieth",
    )
    idle_unload_s: float = Field(
        default=0.0,
        ge=0,
        description="seconds without a request after which a model is unloaded; 0: only to make "
        "room for another",
    )
    swap_after_s: float = Field(
        default=5.0,
        ge=0,
        description="seconds for which models in use take new requests while another waits for "
        "their memory; then they finish what they have and give way",
    )


class Config(BaseSettings):
    """The whole tree. Precedence: command line, environment, file, defaults."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="CORRAL_", env_nested_delimiter="__"
    )

    server: Annotated[ServerConfig, BeforeValidator(_section)] = Field(
        default=ServerConfig(), description="the HTTP side"
    )
    pool: Annotated[PoolConfig, BeforeValidator(_section)] = Field(
        default=PoolConfig(), description="which models are loaded, and for how long"
    )
    models: Annotated[dict[str, ModelConfig], BeforeValidator(_section)] = Field(
        default={}, description="the pool, by the id that clients ask for"
    )
    models_dir: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_folders)] = Field(
        default=(),
        description="folders whose GGUF files are served too, with those of folders inside them; "
        "one or a list, relative to this file's folder",
    )
    hf_cache: Annotated[Literal["on", "off"], BeforeValidator(_on_off)] = Field(
        default="on",
        description="serve the GGUF files in the Hugging Face cache (HF_HUB_CACHE, HF_HOME or "
        "~/.cache/huggingface): on or off",
    )
    default_model: str | None = Field(
        default=None,
        description="the model for requests that name none; null: the only one, else the first "
        "that is preloaded",
    )
    found: Annotated[FoundConfig, BeforeValidator(_section)] = Field(
        default=FoundConfig(),
        description="engine and sampling of the models that are found in models_dir and the "
        "Hugging Face cache, as those of a configured one",
    )

    @model_validator(mode="after")
    def _one_model_per_name(self) -> Self:
        owners = {id: id for id in self.models}
        for id, model in self.models.items():
            for alias in model.aliases:
                if owners.setdefault(alias, id) != id:
                    raise ValueError(
                        f"models.{id}.aliases: {alias!r} is models.{owners[alias]} already"
                    )
        return self
