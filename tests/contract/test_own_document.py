"""Streams against our own /openapi.json, whose events are what a client is generated from."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.contract import test_chat, test_completions, test_responses
from tests.contract.test_responses import events_of
from tests.e2e.wire import events


@pytest.fixture(scope="package")
def own(url: str) -> Mapping[str, Any]:
    """The document."""
    return httpx.get(f"{url}/openapi.json").raise_for_status().json()


def check(own: Mapping[str, Any], path: str, chunks: list[Any]) -> None:
    """Each chunk is what the document says that a stream of `path` consists of."""
    content = own["paths"][path]["post"]["responses"]["200"]["content"]
    schema = {**content["text/event-stream"]["schema"], "components": own["components"]}
    validator = Draft202012Validator(schema)
    for chunk in chunks:
        validator.validate(chunk)  # pyright: ignore[reportUnknownMemberType]
    assert len(chunks) > 2


@pytest.mark.parametrize("name", test_chat.BODIES)
def test_chats(http: httpx.Client, own: Mapping[str, Any], name: str) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    response = http.post(test_chat.PATH, json={**test_chat.body_of(name), **options})
    check(own, test_chat.PATH, [json.loads(data) for data in events(response.content)[:-1]])


@pytest.mark.parametrize("name", test_completions.BODIES)
def test_texts(http: httpx.Client, own: Mapping[str, Any], name: str) -> None:
    body = test_completions.body_of({**test_completions.BODIES[name], "stream": True, "n": 2})
    response = http.post(test_completions.PATH, json=body)
    chunks = [json.loads(data) for data in events(response.content)[:-1]]
    check(own, test_completions.PATH, chunks)


@pytest.mark.parametrize("name", test_responses.BODIES)
def test_items(http: httpx.Client, own: Mapping[str, Any], name: str) -> None:
    body = {**test_responses.body_of(name), "stream": True}
    response = http.post(test_responses.PATH, json=body)
    check(own, test_responses.PATH, [*events_of(response.content)])
