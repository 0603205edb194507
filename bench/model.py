"""The benchmark's models: the repository's own, requantised.

The first is Q4_0, the type with the fastest CPU kernels; the second Q8_0, for scenarios with two.
"""

import ctypes
from pathlib import Path

import llama_cpp.llama_cpp as llama

EMBEDDED = Path(__file__).resolve().parent.parent / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
FIRST, SECOND = "Q4_0", "Q8_0"


class ModelError(Exception):
    """The model's file is missing or llama.cpp refuses it."""


def _drop(_level: int, _text: bytes, _user_data: object) -> None:
    """A log callback that keeps quiet."""


_DROP = llama.llama_log_callback(_drop)


def silence_logs() -> None:
    """Keep llama.cpp's log off the terminal."""
    llama.llama_log_set(_DROP, ctypes.c_void_p(None))


def ensure_model(folder: Path, quant: str, source: Path = EMBEDDED) -> Path:
    """A requantised file in `folder`, made from `source` on the first call; `quant` as in Q4_0."""
    target = folder / f"SmolLM2-135M-Instruct.{quant}.gguf"
    if target.exists():
        return target
    if not source.exists():
        raise ModelError(f"no model at {source}; name another with --source")
    silence_logs()
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{quant}")
    params.allow_requantize = True
    partial = target.with_suffix(".partial")
    code = llama.llama_model_quantize(
        str(source).encode(), str(partial).encode(), ctypes.pointer(params)
    )
    if code:
        raise ModelError(f"llama_model_quantize returned {code} for {source}")
    partial.rename(target)
    return target


def end_tokens(path: Path) -> list[int]:
    """The ids of the tokens that end a generation."""
    silence_logs()
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ModelError(f"llama.cpp cannot load {path}")
    vocab = llama.llama_model_get_vocab(model)
    assert vocab is not None
    n_vocab = llama.llama_vocab_n_tokens(vocab)
    ids = [token for token in range(n_vocab) if llama.llama_vocab_is_eog(vocab, token)]
    llama.llama_model_free(model)
    return ids
