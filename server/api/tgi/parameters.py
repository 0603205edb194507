"""What a request to TGI says: the text, and how to go on from it."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, assert_never, cast

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from server.api.body import Body
from server.api.openai.logprobs import MAX_TOP
from server.api.openai.response_format import Schema, json_grammar
from server.api.openai.schema import MAX_N, Stop
from server.api.wire import Given
from server.errors import InvalidRequest, UnsupportedParameter
from server.ipc import Grammar
from server.sampling import INT_MAX

DEFAULT_MAX_NEW_TOKENS = 100

PATH = "parameters.grammar.value"


def _read_schema(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"the text is not JSON: {error}") from error


class JsonShape(Given):
    """An answer that matches a schema, given as an object or as its JSON."""

    type: Literal["json", "json_object"]
    value: Annotated[Schema, BeforeValidator(_read_schema, json_schema_input_type=Schema | str)]


class RegexShape(Given):
    """An answer that a regular expression matches."""

    type: Literal["regex"]
    value: str


class NamedSchema(Given):
    """A schema with a name, which changes nothing."""

    name: str | None = None
    schema_: Schema = Field(alias="schema")


class SchemaShape(Given):
    """An answer that matches a schema."""

    type: Literal["json_schema"]
    value: NamedSchema


_TAGS = {"json": "<json>", "json_object": "<json>", "regex": "<regex>", "json_schema": "<schema>"}


def _shape(value: object) -> str | None:
    fields = cast("Mapping[str, object]", value if isinstance(value, Mapping) else {})
    kind = fields.get("type")
    return _TAGS.get(kind) if isinstance(kind, str) else None


Shape = Annotated[
    Annotated[JsonShape, Tag("<json>")]
    | Annotated[RegexShape, Tag("<regex>")]
    | Annotated[SchemaShape, Tag("<schema>")],
    Discriminator(
        _shape,
        custom_error_type="no_shape",
        custom_error_message="an object with a type (json, regex or json_schema) and a value",
    ),
]

Share = Annotated[float, Field(gt=0, lt=1)]


class GenerateParameters(Body):
    """The parameters. Extra ones are sampling parameters or not served, as elsewhere."""

    adapter_id: str | None = Field(default=None, description="refused: no adapters are served")
    best_of: int = Field(default=1, ge=1, le=MAX_N, description="candidates, the best is told")
    temperature: float | None = Field(default=None, gt=0, le=100)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    top_k: int | None = Field(default=None, ge=1, le=INT_MAX)
    top_p: Share | None = None
    typical_p: Share | None = None
    do_sample: bool = Field(default=False, description="false, and nothing to sample by: greedy")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description=f"missing: {DEFAULT_MAX_NEW_TOKENS}, or what fits"
    )
    return_full_text: bool | None = Field(default=None, description="begin with the prompt")
    stop: Stop = Field(default=(), description="a part of the answer that it ends")
    truncate: int | None = Field(default=None, ge=1, description="tokens to keep, from the end")
    watermark: bool = Field(default=False, description="refused if true: there is none")
    details: bool = False
    decoder_input_details: bool = Field(default=False, description="tell of the prompt's tokens")
    seed: int | None = Field(default=None, ge=0)
    top_n_tokens: int = Field(default=0, ge=0, le=MAX_TOP, description="best tokens to tell")
    grammar: Shape | None = None

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn. As in TGI, a temperature of 1 alone asks for nothing."""
        asked = (self.top_k, self.top_p, self.typical_p)
        return (
            self.do_sample
            or self.temperature not in (None, 1.0)
            or any(value is not None for value in asked)
        )

    @property
    def detailed(self) -> bool:
        """Whether a whole answer tells more than its text."""
        return self.details or self.decoder_input_details

    @property
    def limit(self) -> int:
        """Most tokens of the answer."""
        return self.max_new_tokens or DEFAULT_MAX_NEW_TOKENS

    def check(self, stream: bool) -> None:
        """Raises InvalidRequest or UnsupportedParameter for what does not go together."""
        if self.watermark:
            raise _unserved("watermark", "answers are not watermarked here")
        if self.adapter_id is not None:
            raise _unserved("adapter_id", "no adapters are served here")
        if self.best_of > 1:
            if not self.samples:
                raise _fault("best_of", "more than 1 only with sampling, as by do_sample")
            if self.seed is not None:
                raise _fault("seed", "not with best_of > 1, whose answers need seeds of their own")
            if stream:
                raise _fault("best_of", "more than 1 is not possible in a stream")
        if stream and self.decoder_input_details:
            raise _fault("decoder_input_details", "not possible in a stream")

    def sampling(self) -> Iterator[tuple[str, object]]:
        """Sampling parameters, and what nobody knows, by the client's names."""
        yield from self.extras.items()
        if not self.samples:
            yield "temperature", 0
        elif self.temperature is not None:
            yield "temperature", self.temperature
        for name in ("top_k", "top_p", "typical_p", "seed"):
            yield name, getattr(self, name)
        yield "repetition_penalty", self.repetition_penalty
        yield "frequency_penalty", self.frequency_penalty
        penalised = self.repetition_penalty is not None or self.frequency_penalty is not None
        if penalised and not {"repeat_last_n", "penalty_last_n"} & self.extras.keys():
            # TGI's look at all there is.
            yield "repeat_last_n", -1

    def shape(self) -> Grammar | None:
        """What the answer must match. Raises InvalidRequest."""
        match self.grammar:
            case None:
                return None
            case JsonShape(value=schema):
                return json_grammar(_of_objects(schema), PATH)
            case RegexShape(value=regex):
                return Grammar("regex", regex, PATH)
            case SchemaShape(value=named):
                return json_grammar(_of_objects(named.schema_), f"{PATH}.schema")
            case _:
                assert_never(self.grammar)


def _of_objects(schema: Schema) -> Schema:
    """To TGI, whatever has properties is an object."""
    return {"type": "object", **schema} if "properties" in schema else schema


def _fault(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"parameters.{name}: {message}", f"parameters.{name}")


def _unserved(name: str, message: str) -> UnsupportedParameter:
    return UnsupportedParameter(f"parameters.{name}: {message}", f"parameters.{name}")


class TextRequest(Body):
    """The body. A model may be named, which TGI itself does not know."""

    model: str = ""
    inputs: str = Field(min_length=1)
    # Without parameters TGI samples, with some it does not unless they say so.
    parameters: GenerateParameters = GenerateParameters(do_sample=True)

    @model_validator(mode="after")
    def _in_their_place(self) -> "TextRequest":
        for name in self.extras:
            if name in GenerateParameters.model_fields:
                raise ValueError(f"{name} belongs into parameters")
        return self

    @property
    def sampling(self) -> Mapping[str, object]:
        """Sampling parameters, and what nobody knows, by the client's names."""
        return {**self.extras, **dict(self.parameters.sampling())}


class CompatRequest(TextRequest):
    """The body for the one path that answers in both ways."""

    stream: bool = False
