"""The whole contract between the API process and a worker: frozen values, no methods.

What comes with every token is a NamedTuple, which pickles in 0.4 of a dataclass's time.

Down go Commands, up go Messages. The promises:

* A worker answers `Load` with any number of `Loading` and then one `Ready` or one `LoadFailed`.
* Every `Submit` gets `Accepted` or `Failed` first, and exactly one `Finished` or `Failed` last.
* One `Step` message carries the events of all sequences of one engine step.
* A `Cancel` ends its request at the next step with `Finished(reason="cancelled")`, unless it has
  ended already.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from server.config import EngineConfig
from server.errors import CorralError
from server.sampling import SamplingParams

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt as text. Special tokens are recognised everywhere but in the `literal` ranges."""

    text: str
    literal: tuple[tuple[int, int], ...] = ()
    """Half-open character ranges that came from a client and are never control tokens."""


Prompt = Text | tuple[int, ...]
"""Text for the model's tokenizer, or token ids."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One answer to be generated. `max_tokens` None: until the context is full."""

    prompt: Prompt
    sampling: SamplingParams
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    cache_prompt: bool = True
    prompt_param: str = "prompt"
    """The request field that errors about the prompt are reported for."""


@dataclass(frozen=True, slots=True)
class Load:
    """Open this GGUF. The first command of a worker's life."""

    model: str
    path: str
    engine: EngineConfig
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class Submit:
    """Generate. `id` is unique in the worker's life."""

    id: int
    request: GenerateRequest


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client of request `id` has gone."""

    id: int


@dataclass(frozen=True, slots=True)
class Shutdown:
    """End the process."""


Command = Load | Submit | Cancel | Shutdown


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the API process needs to know of a loaded model. Token fields are texts."""

    n_ctx: int
    n_ctx_train: int
    n_slots: int
    n_vocab: int
    n_params: int
    size_bytes: int
    description: str
    template: str | None
    bos: str
    eos: str
    special: tuple[str, ...]
    """Texts of the control tokens."""
    kv_layout: str
    n_gpu_layers: int


@dataclass(frozen=True, slots=True)
class Loading:
    """Progress of a load, 0 to 1."""

    progress: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The model has decoded its warm-up tokens and serves."""

    info: ModelInfo


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model cannot be loaded; the process ends."""

    error: CorralError


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is sound and waits or runs. `n_prompt` in tokens."""

    id: int
    n_prompt: int


class Delta(NamedTuple):
    """New text of request `id`, from `n_tokens` more tokens."""

    id: int
    text: str
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a request that went well. Counts are in tokens."""

    id: int
    text: str
    n_tokens: int
    """Tokens behind `text`, the ending one included; not counted by a Delta before."""
    reason: FinishReason
    n_prompt: int
    n_cached: int
    n_completion: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a request that did not."""

    id: int
    error: CorralError


Event = Accepted | Delta | Finished | Failed


class Step(NamedTuple):
    """What one engine step brought, and the load after it."""

    events: tuple[Event, ...]
    n_running: int
    n_waiting: int


Message = Loading | Ready | LoadFailed | Step
