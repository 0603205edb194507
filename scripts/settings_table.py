"""Writes the table of all settings into README.md, between its two marks."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from server.config import Config, FoundConfig, ModelConfig
from server.example import scalar

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->\n"


def with_table(text: str) -> str:
    """The README's text with its table made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    rows = ["| key | default | meaning |", "|---|---|---|", *_rows(Config, "")]
    return before + BEGIN + "\n" + "\n".join(rows) + "\n\n" + END + after


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = prefix + name
        if name == "models" and model is Config:
            yield from _rows(ModelConfig, "models.ID.")
        elif isinstance(field.default, BaseModel) and model is not FoundConfig:
            yield from _rows(type(field.default), f"{key}.")
        else:
            default = "" if field.is_required() else f"`{scalar(field.default)}`"
            meaning = str(field.description).replace("|", "\\|")
            yield f"| `{key}` | {default} | {meaning} |"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
