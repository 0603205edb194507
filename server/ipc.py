"""The whole contract between the API process and a worker: frozen values, no methods.

Down go Commands, up go Messages. The promises:

* A worker answers `Load` with any number of `Loading` and then one `Ready` or one `LoadFailed`.
* Every `Submit` gets `Accepted` or `Failed` first, and exactly one `Finished` or `Failed` last.
* One `Step` message carries the events of all sequences of one engine step.
* A `Cancel` ends its request at the next step with `Finished(reason="cancelled")`, unless it has
  ended already.
* Every `Ask` gets exactly one `Answer` or `Failed`. It takes no slot.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from server.engine_config import EngineConfig
from server.errors import CorralError
from server.sampling import SamplingParams

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt as text. Special tokens are recognised everywhere but in the `literal` ranges."""

    text: str
    literal: tuple[tuple[int, int], ...] = ()
    """Half-open character ranges that came from a client and are never control tokens."""


@dataclass(frozen=True, slots=True)
class Infill:
    """What is missing between two texts. Refused where the vocabulary has no tokens for it."""

    prefix: str
    suffix: str


Prompt = Text | Infill | tuple[int, ...]
"""Text for the model's tokenizer, or token ids."""


class Grammar(NamedTuple):
    """What a whole answer must match. A worker refuses what it cannot enforce."""

    syntax: Literal["json_schema", "regex", "gbnf", "lark"]
    source: str
    """A JSON schema as JSON, or a grammar's text."""
    param: str = "response_format"
    """The request field that errors about the grammar are reported for."""


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
    grammar: Grammar | None = None
    visible: tuple[str, ...] = ()
    """Control tokens whose texts are part of the answer, for whoever parses it."""
    logprobs: int | None = None
    """How many of the best tokens to tell beside each token's own score; None: no scores."""
    echo: bool = False
    """Tell the prompt's tokens too, with scores if `logprobs` is set. `max_tokens` may be 0."""
    keep_stop: bool = False
    """The stop string that ends the answer is a part of it."""


class Load(NamedTuple):
    """Open this GGUF. The first command of a worker's life."""

    model: str
    path: str
    engine: EngineConfig
    log_level: str = "info"


class Submit(NamedTuple):
    """Generate. `id` is unique in the worker's life."""

    id: int
    request: GenerateRequest


class Cancel(NamedTuple):
    """The client of request `id` has gone."""

    id: int


class Tokenize(NamedTuple):
    """Which tokens a text has. Control tokens in it are recognised if `parse_special`.

    With both flags set it is tokenized as a prompt is; only then `literal` counts, as in Text.
    """

    text: str
    add_special: bool = True
    parse_special: bool = True
    literal: tuple[tuple[int, int], ...] = ()


class Detokenize(NamedTuple):
    """Which text these token ids are; control tokens are written out."""

    tokens: tuple[int, ...]


class Embed(NamedTuple):
    """The vectors of texts, in which nothing is a control token, or of token ids."""

    inputs: tuple[str | tuple[int, ...], ...]
    input_param: str = "input"
    """The request field that errors about the inputs are reported for."""


class Rank(NamedTuple):
    """How well each document answers the query, for models trained to tell."""

    query: str
    documents: tuple[str, ...]


Question = Tokenize | Detokenize | Embed | Rank


class Ask(NamedTuple):
    """Answer a question beside the running requests. `id` as in Submit, from the same count."""

    id: int
    question: Question


class UseThreads(NamedTuple):
    """Compute with so many threads from the next step on."""

    n: int


class Shutdown(NamedTuple):
    """End the process."""


Command = Load | Submit | Ask | Cancel | UseThreads | Shutdown


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
    special_ids: tuple[int, ...] = ()
    """The ids of `special`, in its order; empty where they are not known."""
    adds_bos: bool = False
    pad: str = ""
    generates: bool = True
    embeds: bool = False
    ranks: bool = False
    n_embd: int = 0
    """Dimensions of an embedding."""
    pooling: str = ""
    """How an embedding comes of the tokens' vectors: mean, cls or last; rank: it is a score."""
    memory: tuple[tuple[str, int], ...] = ()
    """Bytes of weights, cells and buffers on each device, the CPU (with a mapped file) first."""
    name: str = ""
    """What the GGUF calls the model."""
    architecture: str = ""
    tool_template: str | None = None
    """The chat template for conversations with tools, where there is one beside the other."""
    document_template: str | None = None
    """The one for conversations about documents."""
    ends: tuple[str, ...] = ()
    """Texts of the tokens that end a generation; empty where they are not known."""


class Loading(NamedTuple):
    """Progress of a load, 0 to 1."""

    progress: float


class Ready(NamedTuple):
    """The model has decoded its warm-up tokens and serves."""

    info: ModelInfo


class LoadFailed(NamedTuple):
    """The model cannot be loaded; the process ends."""

    error: CorralError


class Accepted(NamedTuple):
    """The request is sound and waits or runs. `n_prompt` in tokens."""

    id: int
    n_prompt: int


class TokenScore(NamedTuple):
    """One token, and how likely the model found it: by its own distribution, before sampling."""

    id: int
    piece: bytes
    """What it adds to the text. Of control tokens in an answer, none; in a prompt, their names."""
    logprob: float | None
    """Natural logarithm; None where it was not asked for, and for a prompt's first token."""
    top: tuple[tuple[int, bytes, float], ...] = ()
    """The best tokens in its place, best first: id, piece, logprob."""


class Echo(NamedTuple):
    """The prompt's tokens, if asked for. Comes after Accepted and before any Delta."""

    id: int
    tokens: tuple[TokenScore, ...]


class Delta(NamedTuple):
    """New text of request `id`, from `n_tokens` more tokens; their scores if asked for."""

    id: int
    text: str
    n_tokens: int
    scores: tuple[TokenScore, ...] = ()


class Finished(NamedTuple):
    """The last event of a request that went well. Counts are in tokens."""

    id: int
    text: str
    n_tokens: int
    """Tokens behind `text`, the ending one included; not counted by a Delta before."""
    reason: FinishReason
    n_prompt: int
    n_cached: int
    n_completion: int
    scores: tuple[TokenScore, ...] = ()
    queued_s: float = 0.0
    """How long it waited for a slot."""
    n_drafted: int = 0
    """Guesses that were checked, and those of them that were right."""
    n_accepted: int = 0


class Tokenized(NamedTuple):
    """The answer to Tokenize: ids, and what each adds to a text, control tokens written out."""

    tokens: tuple[int, ...]
    pieces: tuple[bytes, ...]


class Detokenized(NamedTuple):
    """The answer to Detokenize."""

    text: str


class Embedded(NamedTuple):
    """The answer to Embed: for each input a vector, L2-normalised, as little-endian float32."""

    vectors: tuple[bytes, ...]
    n_tokens: tuple[int, ...]


class Ranked(NamedTuple):
    """The answer to Rank: for each document a score from 0 to 1, higher is better."""

    scores: tuple[float, ...]
    n_tokens: tuple[int, ...]


Reply = Tokenized | Detokenized | Embedded | Ranked


class Answer(NamedTuple):
    """The answer to an Ask."""

    id: int
    reply: Reply


class Failed(NamedTuple):
    """The last event of a request that did not."""

    id: int
    error: CorralError


Event = Accepted | Echo | Delta | Finished | Failed | Answer


class Step(NamedTuple):
    """What one engine step brought, and the load after it."""

    events: tuple[Event, ...]
    n_running: int
    n_waiting: int


Message = Loading | Ready | LoadFailed | Step
