"""llama.cpp as objects that free themselves: the only importer of llama_cpp.

Return codes become exceptions here and nowhere else. What would abort the process (a batch that
is too large, a slot out of range, logits of a row that has none) is checked before the call.

Deliberate oddities:
* `Any` and pyright's ignores are allowed in this package: ctypes has no useful types.
* The low-level API is used, never the class `Llama`, which holds one sequence.
* Texts for the tokenizer may hold NUL characters: lengths are passed, not terminators.
"""

from server.engine.llama.backend import Log, backend_init
from server.engine.llama.context import Context, Logits, NoRoom, State
from server.engine.llama.devices import Device, Devices, gpu_memory, gpus, lend
from server.engine.llama.embedding import EmbeddingContext, Vectors
from server.engine.llama.model import Model
from server.engine.llama.rpc import LIBRARY as RPC
from server.engine.llama.samplers import CANDIDATE, Chain
from server.engine.llama.vocabulary import RawVocabulary

__all__ = [
    "CANDIDATE",
    "RPC",
    "Chain",
    "Context",
    "Device",
    "Devices",
    "EmbeddingContext",
    "Log",
    "Logits",
    "Model",
    "NoRoom",
    "RawVocabulary",
    "State",
    "Vectors",
    "backend_init",
    "gpu_memory",
    "gpus",
    "lend",
]
