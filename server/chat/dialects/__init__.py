"""The dialects, one file for each family. The first that speaks a template's language is taken."""

from server.chat.dialect import Dialect
from server.chat.dialects import (
    bagel,
    command_r,
    deepseek,
    functionary,
    gemma,
    generic,
    gpt_oss,
    granite,
    hermes,
    llama3,
    mistral,
    qwen3_coder,
)

DIALECTS = (
    gpt_oss.DIALECT,
    functionary.V32,
    functionary.V31,
    qwen3_coder.SEED,
    qwen3_coder.DIALECT,
    deepseek.DIALECT,
    deepseek.V31,
    mistral.ARGS,
    mistral.DIALECT,
    command_r.DIALECT,
    command_r.ACTION,
    granite.DIALECT,
    gemma.DIALECT,
    gemma.FUNCTION,
    hermes.DIALECT,
    llama3.DIALECT,
    bagel.DIALECT,
    bagel.YAML,
    generic.DIALECT,
)


def dialect_of(source: str) -> Dialect:
    """The dialect of a model with this template."""
    return next(dialect for dialect in DIALECTS if dialect.spoken(source))


def dialect_named(name: str) -> Dialect:
    """Raises KeyError."""
    return {dialect.name: dialect for dialect in DIALECTS}[name]
