"""/openapi.json against what is really taken and sent."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import BaseModel

from server.api import ROUTERS, openapi
from server.api.body import json_body
from server.ipc import (
    Accepted,
    Delta,
    Echo,
    Event,
    Finished,
    GenerateRequest,
    Question,
    Reply,
    Tokenized,
    TokenScore,
)
from server.sampling import ALIASES, SamplingParams
from tests.api.scripted import MODEL, build, events, house

Json = dict[str, Any]

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def told() -> Json:
    app, _ = build()
    return app.openapi()


def operations(told: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def check(told: Json, schema: Json, value: object) -> None:
    whole = {**schema, "components": told["components"]}
    Draft202012Validator(whole).validate(value)  # pyright: ignore[reportUnknownMemberType]


def content(
    told: Json, path: str, status: str, kind: str = "application/json", method: str = "post"
) -> Json:
    """The schema of a response."""
    return told["paths"][path][method]["responses"][status]["content"][kind]["schema"]


def test_it_is_a_sound_document(told: Json) -> None:
    validate(told)


async def test_it_is_served() -> None:
    async with house() as h:
        response = await h.client.get("/openapi.json")
        page = await h.client.get("/docs")
    assert response.json()["openapi"].startswith("3.1")
    assert page.status_code == 200


def test_every_operation_has_a_name_of_its_own(told: Json) -> None:
    names = [operation["operationId"] for _, _, operation in operations(told)]
    assert len(names) == len(set(names))
    assert {"create_chat_completion", "create_completion", "list_models", "tokenize"} <= set(names)


TGI = ("", "generate", "generate_stream", "info", "health", "tokenize", "chat_tokenize")


def errors_of(path: str, status: str) -> Json:
    """The schema of this endpoint's errors: OpenAI's, or TGI's too."""
    ours, tgis = ({"$ref": f"#/components/schemas/{n}"} for n in ("ErrorResponse", "TgiError"))
    if path.removeprefix("/v1/") not in TGI:
        return ours
    if (path, status) == ("/v1/health", "5XX"):
        return {"$ref": "#/components/schemas/Unhealthy"}
    return {"anyOf": [ours, tgis]}


def test_the_routes_of_admins_are_told_of(told: Json) -> None:
    paths = {path for path in told["paths"] if path.startswith("/v1/admin/")}
    models = {f"/v1/admin/models{end}" for end in ("", "/load", "/unload", "/pin", "/pull")}
    assert paths == models | {f"/v1/admin/{name}" for name in ("events", "plan", "reload")}
    for path, method in (("/v1/admin/events", "get"), ("/v1/admin/models/pull", "post")):
        answer = told["paths"][path][method]["responses"]["200"]
        assert list(answer["content"]) == ["text/event-stream"]


def test_every_operation_is_described(told: Json) -> None:
    for method, path, operation in operations(told):
        where = f"{method} {path}"
        assert path.startswith("/v1/"), where
        assert operation["summary"] and not operation["summary"].endswith("."), where
        assert len(operation["tags"]) == 1, where
        responses = operation["responses"]
        assert set(responses) == {"200", "4XX", "5XX"}, where
        for kind in responses["200"]["content"].values():
            assert kind["schema"], where
        for status in ("4XX", "5XX"):
            (schema,) = responses[status]["content"].values()
            schema["schema"].pop("title", None)
            assert schema["schema"] == errors_of(path, status), where


def test_every_model_is_used(told: Json) -> None:
    text = json.dumps(told)
    for name in told["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name
        assert "__" not in name, f"two models are called {name.rpartition('__')[2]}"
    assert {"Message", "ResponsesMessage"} <= told["components"]["schemas"].keys()


def test_bodies(told: Json) -> None:
    body = told["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    assert body == {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/ChatCompletionRequest"}}
        },
    }


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_sampling_parameters_are_fields_of_bodies(told: Json, path: str) -> None:
    reference = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = told["components"]["schemas"][reference["$ref"].rpartition("/")[2]]
    assert body["properties"].keys() > SamplingParams.model_fields.keys() | ALIASES.keys()
    assert "default" not in body["properties"]["temperature"]
    for bias in ({"15": -1.5, "16": False}, [[15, -1.5], [16, False]]):
        check(told, body["properties"]["logit_bias"], bias)


FUNCTION = {"name": "f", "parameters": {"type": "object"}, "strict": True}
TOOL = {"type": "function", "function": FUNCTION}

TAKEN: list[tuple[str, Json]] = [
    ("/v1/chat/completions", {"stop": "x", "max_tokens": -1, "temperature": 0}),
    ("/v1/chat/completions", {"stop": ["x", "y"], "max_completion_tokens": 5, "n": 2}),
    ("/v1/chat/completions", {"logit_bias": {"5": -1}, "repetition_penalty": 1.1}),
    ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 3, "seed": 2**40}),
    ("/v1/chat/completions", {"stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": []}]}),
    ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": None}]}),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    ),
    ("/v1/chat/completions", {"tools": [TOOL], "tool_choice": "none"}),
    ("/v1/chat/completions", {"response_format": {"type": "json_object"}}),
    (
        "/v1/chat/completions",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
    ),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 0, "echo": True}),
    ("/v1/completions", {"prompt": [1, 2], "logprobs": 2, "best_of": 2, "stop": "x"}),
    ("/v1/completions", {"prompt": [[1], [2]], "max_tokens": -1, "regex": "a+"}),
    ("/v1/responses", {"input": "Hi", "stop": "x", "max_output_tokens": 5, "top_k": 3}),
    ("/v1/responses", {"input": [{"role": "user", "content": "Hi"}]}),
    ("/v1/responses", {"tools": [{"type": "function", **FUNCTION}], "tool_choice": "none"}),
    ("/v1/responses", {"tools": [{"type": "web_search"}], "include": ["x"], "stream": True}),
    ("/v1/responses", {"text": {"format": {"type": "json_schema", "name": "a", "schema": {}}}}),
]
"""What to add to the least that an endpoint takes."""

LEAST: Json = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
}


@pytest.mark.parametrize(("path", "more"), TAKEN)
async def test_what_is_taken_is_described(told: Json, path: str, more: Json) -> None:
    body = {"model": MODEL, **LEAST[path], **more}
    async with house() as h:
        response = await h.post(path, **body)
    assert response.status_code == 200, response.text
    operation = told["paths"][path]["post"]
    check(told, operation["requestBody"]["content"]["application/json"]["schema"], body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/chat/completions", {"messages": MESSAGES, "n": 2, "logprobs": True}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/completions", {"prompt": ["Hi", "Ho"], "logprobs": 0}),
    ],
)
@pytest.mark.parametrize("include_usage", [True, False])
async def test_what_is_generated(told: Json, path: str, body: Json, include_usage: bool) -> None:
    async with house() as h:
        whole = await h.post(path, **body)
        streamed = await h.post(
            path, stream=True, stream_options={"include_usage": include_usage}, **body
        )
    check(told, content(told, path, "200"), whole.json())
    *chunks, done = events(streamed.content)
    assert done == "[DONE]"
    for chunk in chunks:
        check(told, content(told, path, "200", "text/event-stream"), chunk)


def scored(_: int, request: GenerateRequest) -> list[Event]:
    """Two tokens, told as TGI needs them."""
    scores = [TokenScore(id, b"x", -0.5, ((id, b"x", -0.5),)) for id in (1, 2)]
    echo: list[Event] = [Echo(0, (TokenScore(3, b"Hi", None),))] if request.echo else []
    end = Finished(0, "x", 1, "stop", 1, 0, 2, (scores[1],))
    return [Accepted(0, 1), *echo, Delta(0, "x", 1, (scores[0],)), end]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"details": True, "stop": "x", "best_of": 2, "do_sample": True},
        {"details": True, "top_n_tokens": 1, "decoder_input_details": True},
    ],
)
async def test_what_is_generated_for_tgi(told: Json, parameters: Json) -> None:
    body = {"inputs": "Hi", "parameters": parameters}
    async with house(scored) as h:
        for path in ("/v1/", "/v1/generate"):
            whole = await h.post(path, **body)
            check(told, content(told, path, "200"), whole.json())
        streamed = {"details": True, "top_n_tokens": parameters.get("top_n_tokens", 0)}
        response = await h.post("/v1/generate_stream", inputs="Hi", parameters=streamed)
        refused = await h.post("/v1/generate_stream")
    schema = content(told, "/v1/generate_stream", "200", "text/event-stream")
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    for block in blocks:
        check(told, schema, json.loads(block.removeprefix("data:")))
    assert len(blocks) == 2
    assert refused.status_code == 422
    check(told, content(told, "/v1/generate_stream", "4XX"), refused.json())


def one_token(_: Question) -> Reply:
    return Tokenized((1,), (b"x",))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tokenize", {"prompt": "Hi"}),
        ("/v1/tokenize", {"content": "Hi"}),
        ("/v1/tokenize", {"content": "Hi", "with_pieces": True}),
        ("/v1/tokenize", {"inputs": "Hi"}),
        ("/v1/apply-template", {"messages": MESSAGES}),
        ("/v1/chat/completions/input_tokens", {"messages": MESSAGES}),
    ],
)
async def test_what_is_not_generated(told: Json, path: str, body: Json) -> None:
    async with house() as h:
        h.worker.answer = one_token
        response = await h.post(path, **body)
        refused = await h.client.post(path, json={})
    check(told, content(told, path, "200"), response.json())
    assert refused.status_code == 400
    check(told, content(told, path, "4XX"), refused.json())


@pytest.mark.parametrize("path", ["/v1/models", "/v1/healthz", "/v1/readyz", "/v1/admin/models"])
async def test_what_has_no_body(told: Json, path: str) -> None:
    async with house() as h:
        response = await h.client.get(path)
    schema = told["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    check(told, schema, response.json())


class Asked(BaseModel):
    """A body."""

    text: str


class Piece(BaseModel):
    """An event."""

    text: str


async def test_a_route_of_any_module() -> None:
    router = APIRouter()

    @router.post("/say/{id}", responses=openapi.streams(Piece))
    async def say(  # pyright: ignore[reportUnusedFunction]
        id: int, body: Annotated[Asked, Depends(json_body(Asked))], loud: bool = False
    ) -> Piece:
        """Say it.

        As often as need be.
        """
        return Piece(text=f"{id}{body.text}{loud}")

    app = FastAPI()
    app.include_router(router)
    openapi.document(app, [router], "")
    operation = app.openapi()["paths"]["/say/{id}"]["post"]
    assert operation["summary"] == "Say it"
    assert operation["description"] == "As often as need be."
    assert operation["tags"] == ["tests"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["id", "loud"]
    assert list(operation["responses"]["200"]["content"]) == [
        "application/json",
        "text/event-stream",
    ]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://corral"
    ) as client:
        response = await client.post("/say/3", content=b'{"text": "a"}')
    assert response.json() == {"text": "3aFalse"}


def test_the_framework_looks_at_no_model_before_the_document_is_made() -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    for route in routes:
        assert isinstance(route, APIRoute)
        assert route.response_field is None and not route.response_fields, route.path
        assert not route.dependant.path_params + route.dependant.query_params, route.path
