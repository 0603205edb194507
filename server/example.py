"""The commented config.yaml that comes with the project and that `corral config` prints."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ByteSize

from server.config import Config, ModelConfig

DEMO = {
    "server": {"host": "127.0.0.1", "port": 8000, "store": "responses.db"},
    "models": {
        "smollm2-135m-instruct": {
            "path": "models/SmolLM2-135M-Instruct.Q4_1.gguf",
            "preload": True,
            "engine": {"n_ctx": 4096, "n_slots": 16, "n_gpu_layers": "auto"},
            "sampling": {"temperature": 0.7},
        }
    },
}
"""The configuration that comes with the project, without comments."""

PREFACE = """\
# Corral's configuration. A key that stands commented out as #key: value has that value.
# Environment variables override this file: CORRAL_SERVER__PORT=9000.

"""


def annotated(values: Mapping[str, Any]) -> str:
    """`values` as the text of a config.yaml in which every key stands under its description."""
    return PREFACE + "\n".join(_annotate(values, Config, "")) + "\n"


def _annotate(values: Mapping[str, Any], model: type[BaseModel], pad: str) -> Iterator[str]:
    """The lines for `values`; keys of `model` that it lacks stand commented out."""
    after_section = False
    for index, (name, field) in enumerate(model.model_fields.items()):
        is_section = isinstance(field.default, BaseModel | dict)
        if index and (is_section or after_section):
            yield ""
        after_section = is_section
        yield from _comment(str(field.description), pad)
        if name not in values:
            yield f"{pad}#{name}: {scalar(field.default)}"
        elif name == "models":
            yield f"{pad}models:"
            for id, entry in values[name].items():
                yield f"{pad}  {scalar(id)}:"
                yield from _annotate(entry, ModelConfig, f"{pad}    ")
        elif isinstance(field.default, BaseModel):
            yield f"{pad}{name}:"
            yield from _annotate(values[name], type(field.default), f"{pad}  ")
        else:
            yield f"{pad}{name}: {scalar(values[name])}"


def _comment(text: str, pad: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")


def scalar(value: object) -> str:
    """A value as YAML on one line; bytes in the largest unit that needs no fraction."""
    if isinstance(value, BaseModel):
        return "{}"
    if isinstance(value, ByteSize):
        power = max(power for power in range(4) if value % 1024**power == 0)
        return f"{value // 1024**power}{('B', 'KiB', 'MiB', 'GiB')[power]}"
    if isinstance(value, tuple | list):
        return json.dumps(value)
    return yaml.safe_dump(value, width=1000).removesuffix("...\n").strip()
