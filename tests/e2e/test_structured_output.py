"""Answers of the real model that must match a schema or a grammar."""

import json
import re
from typing import Any, Literal

import httpx
import pytest
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field

from tests.e2e.asking import MODEL, Body, chat, chat_body, complete, say, streamed_chat, user
from tests.e2e.wire import error_of

QUESTION = user("Describe a person.")


class Address(BaseModel):
    """Where somebody lives."""

    model_config = ConfigDict(extra="forbid")

    city: str = Field(max_length=12)
    zip: str = Field(pattern="^[0-9]{5}$")


class Person(BaseModel):
    """Somebody."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    color: Literal["red", "green"]
    address: Address


PERSON: Body = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "person", "schema": Person.model_json_schema(), "strict": True},
    }
}


@pytest.mark.parametrize("seed", range(3))
def test_a_schema(sdk: OpenAI, seed: int) -> None:
    body = {**PERSON, "temperature": 1.2, "seed": seed, "max_tokens": 200}
    (choice,) = chat(sdk, QUESTION, body).choices
    assert choice.finish_reason == "stop"
    Person.model_validate_json(choice.message.content or "", strict=True)


def test_the_sdk_parses_it(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.parse(
        model=MODEL, messages=QUESTION, response_format=Person, max_tokens=200
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_streams_and_several_choices(http: httpx.Client) -> None:
    body = {**PERSON, "n": 3, "seed": 1, "max_tokens": 200}
    fold = streamed_chat(http, QUESTION, body)
    assert set(fold.reasons.values()) == {"stop"}
    for text in fold.texts.values():
        Person.model_validate_json(text, strict=True)


def test_an_answer_that_is_cut_off(sdk: OpenAI) -> None:
    (choice,) = chat(sdk, QUESTION, {**PERSON, "max_tokens": 5}).choices
    assert choice.finish_reason == "length"


def test_any_object(sdk: OpenAI) -> None:
    body = {"response_format": {"type": "json_object"}, "temperature": 0, "max_tokens": 400}
    (choice,) = chat(sdk, user("Answer with a small JSON object."), body).choices
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content or ""), dict)
    else:
        assert (choice.message.content or "").lstrip().startswith("{")


GRAMMARS: list[tuple[Body, str]] = [
    ({"regex": "[a-c]{3}-[0-9]{2}"}, "[a-c]{3}-[0-9]{2}"),
    ({"grammar": 'root ::= "yes" | "no" ", " [a-z]+ "."'}, r"yes|no, [a-z]+\."),
    ({"lark": 'start: "<" /[a-z]{1,5}/ ">"'}, "<[a-z]{1,5}>"),
    ({"guided_choice": ["per.haps", "never"]}, r"per\.haps|never"),
    ({"guided_regex": "[0-9]{4}"}, "[0-9]{4}"),
    ({"structured_outputs": {"choice": ["a b", "c"]}}, "a b|c"),
    ({"json_schema": {"enum": [1, "two"]}}, '1|"two"'),
]


@pytest.mark.parametrize(("body", "pattern"), GRAMMARS)
def test_grammars(sdk: OpenAI, body: Body, pattern: str) -> None:
    text = say(sdk, QUESTION, {**body, "max_tokens": 40, "temperature": 1, "seed": 2})
    assert re.fullmatch(pattern, text)
    (choice,) = complete(sdk, "Once upon a time", {**body, "max_tokens": 40, "seed": 3}).choices
    assert re.fullmatch(pattern, choice.text)


BAD: list[tuple[Body, str, str]] = [
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"properties": {"a": {"type": "odd"}}}},
            }
        },
        "response_format.json_schema.schema",
        "/properties/a",
    ),
    ({"regex": "(a"}, "regex", ""),
    ({"grammar": 'top ::= "a"'}, "grammar", "root"),
    ({"grammar": 'root ::= root "a"'}, "grammar", ""),
    ({"grammar": "root ::= other"}, "grammar", "other"),
    ({"lark": "start: other"}, "lark", "other"),
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(("body", "param", "said"), BAD)
def test_what_cannot_be_enforced(
    http: httpx.Client, path: str, body: Body, param: str, said: str
) -> None:
    fields: dict[str, Any] = {**chat_body(QUESTION, body), "prompt": "Hi"}
    del fields["prompt" if path.startswith("/v1/chat") else "messages"]
    response = http.post(path, json=fields)
    assert response.status_code == 400, response.text
    error = error_of(response.content)
    assert error["param"] == param
    assert said in error["message"]
