"""Every setting, as frozen pydantic models that are made once at start and passed in.

Every key has a description, which is also its comment in `config.yaml` (`example.py` writes it).
`config_file.py` and `environment.py` read them.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ByteSize, Field, model_validator

from server.engine_config import EngineConfig, Frozen, on_off
from server.sampling import SamplingParams

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


class ModelConfig(Frozen):
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
        description="chat template: a name of templates/ or a .jinja file; null: the GGUF's own, "
        "else that of the model's family",
    )
    dialect: DialectName | None = Field(
        default=None,
        description="how the model writes tool calls: bagel, bagel_yaml, command_r, "
        "command_r_action, deepseek, deepseek_v31, functionary_v31, functionary_v32, "
        "functiongemma, gemma, generic, gpt_oss, granite, hermes, llama3, mistral, mistral_args, "
        "qwen3_coder or seed_oss; null: as its template says",
    )


class FoundConfig(Frozen):
    """What models have in common that are found, not configured."""

    engine: EngineConfig = Field(
        default=EngineConfig(), description="how llama.cpp holds them; keys as in models.ID.engine"
    )
    sampling: SamplingParams = Field(
        default=SamplingParams(),
        description="defaults for requests that set none; keys as in models.ID.sampling",
    )


class ServerConfig(Frozen):
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
    client_templates: bool = Field(
        default=False,
        description="let requests bring chat templates of their own, as jinja in chat_template; "
        "names of templates/ are always allowed",
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


class PoolConfig(Frozen):
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


class Config(Frozen):
    """The whole tree. Precedence: command line, environment, file, defaults."""

    server: Annotated[ServerConfig, BeforeValidator(_section)] = Field(
        default=ServerConfig(), description="the HTTP side"
    )
    pool: Annotated[PoolConfig, BeforeValidator(_section)] = Field(
        default=PoolConfig(), description="which models are loaded, and for how long"
    )
    models: Annotated[dict[str, ModelConfig], BeforeValidator(_section)] = Field(
        default={}, description="the pool, by the id that clients ask for"
    )
    models_dir: Annotated[tuple[Path, ...], BeforeValidator(_folders)] = Field(
        default=(),
        description="folders whose GGUF files are served too, with those of folders inside them; "
        "one or a list, relative to this file's folder",
    )
    hf_cache: Annotated[Literal["on", "off"], BeforeValidator(on_off)] = Field(
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
