"""What shape an answer must have: `response_format`, and the names that other servers give it."""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from server.api.wire import Given, Wire
from server.errors import InvalidRequest
from server.ipc import Grammar

NAME = r"^[a-zA-Z0-9_-]{1,64}$"
"""What OpenAI takes as the name of a schema or a function."""

Schema = dict[str, object]

SYNTAXES: tuple[tuple[str, Literal["regex", "gbnf", "lark"]], ...] = (
    ("regex", "regex"),
    ("grammar", "gbnf"),
    ("lark", "lark"),
    ("guided_regex", "regex"),
    ("guided_grammar", "gbnf"),
)
"""Fields whose value is a grammar's text."""


class JsonSchema(Given):
    """`response_format.json_schema`. Schemas are always enforced, `strict` or not."""

    name: str = Field(pattern=NAME)
    description: str | None = None
    schema_: Schema = Field(default={"type": "object"}, alias="schema")
    strict: bool | None = None


class ResponseFormat(Given):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = Field(
        default=None, description="required if the type is json_schema"
    )
    schema_: Schema | None = Field(
        default=None, alias="schema", description="a schema for json_object, as llama-server has it"
    )

    value: Schema | None = Field(
        default=None, description="a schema for json_object, as huggingface_hub sends it"
    )

    def grammar(self) -> Grammar | None:
        """Raises InvalidRequest."""
        match self.type:
            case "text":
                return None
            case "json_object":
                name, schema = ("value", self.value) if self.value else ("schema", self.schema_)
                return json_grammar(schema or {"type": "object"}, f"response_format.{name}")
            case "json_schema":
                path = "response_format.json_schema"
                if self.json_schema is None:
                    raise InvalidRequest(f"{path}: required by this type", param=path)
                return json_grammar(self.json_schema.schema_, f"{path}.schema")


class StructuredOutputs(Wire):
    """vLLM's `structured_outputs`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    json_: Schema | str | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = Field(default=None, min_length=1)
    grammar: str | None = None

    def grammars(self) -> Iterator[Grammar]:
        """All that are given."""
        path = "structured_outputs"
        if self.json_ is not None:
            yield json_grammar(self.json_, f"{path}.json")
        if self.json_object:
            yield json_grammar({"type": "object"}, f"{path}.json_object")
        if self.regex:
            yield Grammar("regex", self.regex, f"{path}.regex")
        if self.choice is not None:
            yield choice_grammar(self.choice, f"{path}.choice")
        if self.grammar:
            yield Grammar("gbnf", self.grammar, f"{path}.grammar")


class AnswerFormat(Wire):
    """The fields that say what shape the answer must have. At most one of them may ask for one."""

    response_format: ResponseFormat | None = None
    regex: str | None = Field(default=None, description="a regular expression for the whole answer")
    grammar: str | None = Field(default=None, description="a grammar in GBNF")
    lark: str | None = Field(default=None, description="a grammar in Lark's syntax")
    json_schema: Schema | None = Field(default=None, description="llama-server's name")
    guided_json: Schema | str | None = Field(default=None, description="vLLM's name")
    guided_regex: str | None = Field(default=None, description="vLLM's name")
    guided_grammar: str | None = Field(default=None, description="vLLM's name")
    guided_choice: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, description="the answer is one of these texts"
    )
    structured_outputs: StructuredOutputs | None = Field(default=None, description="vLLM's name")

    @property
    def answer_grammar(self) -> Grammar | None:
        """What the whole answer must match. Raises InvalidRequest if that is more than one."""
        asked = list(self._asked())
        if len(asked) > 1:
            first, second = asked[0].param, asked[1].param
            raise InvalidRequest(
                f"{second}: only one field may shape the answer, and {first} does", param=second
            )
        return asked[0] if asked else None

    def _asked(self) -> Iterator[Grammar]:
        if self.response_format is not None:
            grammar = self.response_format.grammar()
            if grammar is not None:
                yield grammar
        for name, syntax in SYNTAXES:
            # Some clients send an empty grammar for none.
            text: str | None = getattr(self, name)
            if text:
                yield Grammar(syntax, text, name)
        if self.json_schema is not None:
            yield json_grammar(self.json_schema, "json_schema")
        if self.guided_json is not None:
            yield json_grammar(self.guided_json, "guided_json")
        if self.guided_choice is not None:
            yield choice_grammar(self.guided_choice, "guided_choice")
        if self.structured_outputs is not None:
            yield from self.structured_outputs.grammars()


def json_grammar(schema: Schema | str, param: str) -> Grammar:
    """The grammar of a JSON schema, given as an object or as its JSON. Raises InvalidRequest."""
    if isinstance(schema, str):
        try:
            given: object = json.loads(schema)
        except ValueError as error:
            raise InvalidRequest(f"{param}: the text is not JSON: {error}", param) from error
        if not isinstance(given, dict):
            raise InvalidRequest(f"{param}: a schema is a JSON object", param)
        return Grammar("json_schema", schema, param)
    return Grammar("json_schema", json.dumps(schema), param)


def choice_grammar(choices: tuple[str, ...], param: str) -> Grammar:
    """The grammar of a text that is one of `choices`."""
    quoted = (re.sub(r"([\\.+*?()|\[\]{}^$#&~-])", r"\\\1", choice) for choice in choices)
    return Grammar("regex", "|".join(f"({choice})" for choice in quoted), param)
