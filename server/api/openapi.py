"""/openapi.json: what the routes take and give, exact enough to make a client from.

The framework cannot see by itself what a body, a query and a path have, which dependencies of ours
read, nor what an answer and the events of a stream have. So the document is made from twins of the
routes, which tell it all that.
"""

import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, cast, get_args

from fastapi import APIRouter, Body, FastAPI, Query
from fastapi.openapi.utils import get_openapi
from fastapi.params import Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from pydantic.warnings import UnsupportedFieldAttributeWarning
from starlette.responses import JSONResponse, Response

from server.api import url
from server.api.body import JsonBody
from server.api.wire import Wire
from server.sampling import ALIASES, SamplingParams

EVENT_STREAM = "text/event-stream"

MODEL = "form"
"""Of an answer, in a route's `responses`. A name that the framework does not know, or it would look
at the model at each start."""

REFERENCE = re.compile('"#/components/schemas/([^"]+)"')

LONG_NAME = re.compile(r"server__api__(\w+)__(\w+)")
"""What models are called whose names are not their own: by module, then by class."""

BIAS = {"anyOf": [{"type": "number"}, {"const": False}]}

LOOSER: Mapping[str, Mapping[str, object]] = {
    "logit_bias": {
        "type": ["object", "array"],
        "additionalProperties": BIAS,
        "items": {"type": "array", "prefixItems": [{"type": "integer"}, BIAS]},
    }
}
"""What is read before it is validated: `{"15": -1.5}` beside `[[15, -1.5]]`."""

Responses = dict[int | str, dict[str, Any]]


def is_none(value: object) -> bool:
    """For a field's `exclude_if`: one that clients must not find empty."""
    return value is None


class Sent(Wire):
    """What we send: a field that has a default is there all the same."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


def sent(answer: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    """A whole answer."""
    return Response(answer.model_dump_json(), headers=headers, media_type=JSONResponse.media_type)


class ErrorDetail(Sent):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    """The request field that the error is about."""
    code: str | None


class ErrorResponse(Sent):
    """The one shape of all errors."""

    error: ErrorDetail


ERRORS: Responses = {
    "4XX": {"model": ErrorResponse, "description": "The request cannot be served as it is."},
    "5XX": {"model": ErrorResponse, "description": "The server failed, or is not ready."},
}


def gives(answer: type[BaseModel] | Any) -> Responses:
    """For a route's `responses`: it answers with this model."""
    return {200: {MODEL: answer}}


def streams(event: type[BaseModel] | Any) -> Responses:
    """For a route's `responses`: it answers in events of this model, always or as it is asked."""
    return {"2XX": {MODEL: event}}


def sampling_fields(schema: dict[str, Any]) -> None:
    """For a body's `json_schema_extra`: its extra fields may be sampling parameters.

    Defaults are left out: they are the model's, from the configuration.
    """
    told: dict[str, dict[str, Any]] = SamplingParams.model_json_schema()["properties"]
    told = {name: {**field, **LOOSER.get(name, {})} for name, field in told.items()}
    told |= {
        alias: {**told[name], "description": f"same as {name}"} for alias, name in ALIASES.items()
    }
    for name, field in told.items():
        schema["properties"][name] = {k: v for k, v in field.items() if k != "default"}


def document(app: FastAPI, routers: Iterable[APIRouter], prefix: str) -> None:
    """Have `app` describe `routers`, which it serves under `prefix`."""

    @cache
    def made() -> dict[str, Any]:
        twins = APIRouter()
        for router in routers:
            for route in router.routes:
                if isinstance(route, APIRoute) and route.include_in_schema:
                    _add_twin(twins, route, prefix)
        with warnings.catch_warnings():
            # Of the framework's own fields, whose types it builds only now, as they are ours.
            warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)
            told = get_openapi(
                title=app.title,
                version=app.version,
                description="GGUF models behind an OpenAI-compatible API.",
                routes=twins.routes,
            )
        for path in told["paths"].values():
            for operation in path.values():
                _place_events(operation["responses"])
        _drop_unused(told)
        text = LONG_NAME.sub(_short_name, json.dumps(told))
        # Where we tell alternatives apart ourselves, a value may have the form of several.
        told = json.loads(text.replace('"oneOf":', '"anyOf":'))
        for name, schema in told["components"]["schemas"].items():
            # Generators go by the title, which is the same for two models of one class.
            schema["title"] = name.replace("-", "")
        return told

    app.openapi = made


def _add_twin(twins: APIRouter, route: APIRoute, prefix: str) -> None:
    endpoint = cast("Callable[..., object]", route.endpoint)
    summary, _, details = (inspect.getdoc(endpoint) or "").partition("\n\n")
    responses = ERRORS | _known(route.responses)
    twins.add_api_route(
        prefix + route.path,
        _twin(endpoint),
        methods=list(route.methods or ()),
        operation_id=endpoint.__name__,
        tags=[_about(endpoint.__module__)],
        summary=" ".join(summary.split()).removesuffix("."),
        description=details,
        response_model=responses.get(200, {}).pop("model", route.response_model),
        response_class=route.response_class,
        response_description="Success.",
        responses=responses,
    )


def _known(told: Responses) -> Responses:
    """A route's `responses` as the framework knows them."""
    return {
        status: {"model" if key == MODEL else key: value for key, value in about.items()}
        for status, about in told.items()
    }


def _about(module: str) -> str:
    """What a module's routes are about: its name, or its package's."""
    return module.removeprefix("server.api.").removeprefix("openai.").partition(".")[0]


def _twin(endpoint: Callable[..., object]) -> Callable[..., object]:
    """A function of the same parameters, except that the framework knows its body."""

    def twin() -> None: ...

    signature = inspect.signature(endpoint)
    parameters = [
        parameter.replace(annotation=_seen(parameter.annotation))
        for parameter in signature.parameters.values()
    ]
    vars(twin)["__signature__"] = signature.replace(parameters=parameters)
    return twin


def _seen(annotation: object) -> object:
    for mark in get_args(annotation)[1:]:
        reader: object = mark.dependency if isinstance(mark, Depends) else None
        if isinstance(reader, JsonBody):
            return Annotated[cast("JsonBody[BaseModel]", reader).model, Body()]
        if isinstance(reader, url.Query):
            return Annotated[cast("url.Query[BaseModel]", reader).model, Query()]
        if isinstance(reader, url.PathPart):
            return str
    return annotation


def _place_events(responses: dict[str, Any]) -> None:
    """Move what `streams` told to where it belongs: another form of a success."""
    events: Mapping[str, Any] | None = responses.pop("2XX", None)
    if events is not None:
        (schema,) = events["content"].values()
        responses["200"].setdefault("content", {})[EVENT_STREAM] = schema


def _drop_unused(told: dict[str, Any]) -> None:
    """Drop models that stay inside: what bodies are read into, beside what they are read from."""
    schemas: dict[str, Any] = told["components"]["schemas"]
    used = set[str]()
    found = set(REFERENCE.findall(json.dumps(told["paths"])))
    while found:
        used |= found
        found = set(REFERENCE.findall(json.dumps([schemas[name] for name in found]))) - used
    told["components"]["schemas"] = {name: schemas[name] for name in schemas if name in used}


def _short_name(long: re.Match[str]) -> str:
    """`ResponsesMessage` for a package's, `Message` for a module's."""
    modules, name = long.groups()
    package, *inner = modules.removeprefix("openai__").split("__")
    return package.title() + name if inner else name
