"""The Python SDK: its helpers, its exceptions, its retries, its way to hang up."""

import json

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionFunctionToolParam
from pydantic import BaseModel, Field

from tests.contract import schemas
from tests.contract.conftest import BROKEN, MAX_BODY, NARROW
from tests.e2e.asking import MODEL, forced, scrape, until_idle, user
from tests.e2e.process import ANSWER_S, eventually

WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": dict(schemas.WEATHER),
    },
}


class Person(BaseModel):
    """What `parse` makes a schema of."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)


def test_parse(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.parse(
        model=MODEL, messages=[*user("Ann is 7.")], response_format=Person, temperature=0
    )
    person = answer.choices[0].message.parsed
    assert isinstance(person, Person)
    assert 0 <= person.age <= 120


async def test_parse_asynchronously(async_sdk: AsyncOpenAI) -> None:
    answer = await async_sdk.chat.completions.parse(
        model=MODEL, messages=[*user("Bob is 9.")], response_format=Person, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_parse_a_stream(sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(
        model=MODEL, messages=[*user("Ann is 7.")], response_format=Person, temperature=0
    ) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_parse_calls(sdk: OpenAI) -> None:
    tool = openai.pydantic_function_tool(Person)
    answer = sdk.chat.completions.parse(
        model=MODEL,
        messages=[*user("Ann is 7.")],
        tools=[tool],
        tool_choice="required",
        temperature=0,
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Person)


def test_a_streamed_call_is_the_whole_one(sdk: OpenAI) -> None:
    whole = sdk.chat.completions.create(
        model=MODEL,
        messages=[*user("How warm is Paris?")],
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
        extra_body={"cache_prompt": False},
    )
    with sdk.chat.completions.stream(
        model=MODEL,
        messages=[*user("How warm is Paris?")],
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
        extra_body={"cache_prompt": False},
    ) as stream:
        deltas = [
            event.arguments_delta
            for event in stream
            if event.type == "tool_calls.function.arguments.delta"
        ]
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or []
    [wanted] = whole.choices[0].message.tool_calls or []
    assert wanted.type == "function"
    assert call.function.name == wanted.function.name == "get_weather"
    assert call.function.arguments == wanted.function.arguments == "".join(deltas)
    assert json.loads(call.function.arguments)["unit"] in ("C", "F")
    assert len(deltas) > 1
    assert call.id.startswith("call_")
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_conversation_with_a_call(sdk: OpenAI) -> None:
    messages = [*user("How warm is Paris?")]
    answer = sdk.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], tool_choice="required", temperature=0
    )
    message = answer.choices[0].message
    [call] = message.tool_calls or []
    # As the SDK's documentation does it: the answer goes back as it came.
    said = [*messages, message, {"role": "tool", "tool_call_id": call.id, "content": "19 C"}]
    answer = sdk.chat.completions.create(
        model=MODEL,
        messages=said,  # pyright: ignore[reportArgumentType]
        tools=[WEATHER],
        tool_choice="none",
        temperature=0,
        max_tokens=12,
    )
    assert answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls


async def test_exceptions(sdk: OpenAI, async_sdk: AsyncOpenAI) -> None:
    cases: list[tuple[dict[str, object], type[openai.APIStatusError], int]] = [
        ({"temperature": -1}, openai.BadRequestError, 400),
        ({"model": "nobody"}, openai.NotFoundError, 404),
        ({"padding": "x" * MAX_BODY}, openai.APIStatusError, 413),
        ({"model": BROKEN}, openai.InternalServerError, 500),
    ]
    for fields, kind, status in cases:
        for stream in (False, True):
            body = {**fields, "stream": stream}
            with pytest.raises(kind) as caught:
                sdk.chat.completions.create(model=MODEL, messages=[*user("Hi")], extra_body=body)
            assert caught.value.status_code == status
            assert caught.value.request_id
            with pytest.raises(kind):
                await async_sdk.chat.completions.create(
                    model=MODEL, messages=[*user("Hi")], extra_body=body
                )


def n_answered(http: httpx.Client, status: int, model: str) -> float:
    """Chats of `model` answered so far with this status."""
    labels = {"model": model, "endpoint": "/chat/completions", "status": str(status)}
    return scrape(http).get("corral_requests_total", labels)


def test_a_full_queue_is_tried_again(http: httpx.Client, url: str, sdk: OpenAI) -> None:
    patient = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=1, timeout=ANSWER_S)
    with (
        patient,
        sdk.chat.completions.create(
            model=NARROW, messages=[*user("Hi")], stream=True, extra_body={**forced(28, 1000)}
        ) as running,
    ):
        next(running)
        before = n_answered(http, 429, NARROW)
        with pytest.raises(openai.RateLimitError):
            patient.chat.completions.create(
                model=NARROW, messages=[*user("Me too")], extra_headers={"x-corral-test": "1"}
            )
        assert n_answered(http, 429, NARROW) == before + 2
        running.close()
    until_idle(http, NARROW)


@pytest.mark.parametrize(
    ("model", "status"), [(MODEL, 400), (BROKEN, 500)], ids=["wrong", "broken"]
)
def test_what_cannot_help_is_not_tried_again(
    http: httpx.Client, url: str, model: str, status: int
) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key="none", timeout=ANSWER_S) as patient:
        before = n_answered(http, status, model)
        with pytest.raises(openai.APIStatusError):
            patient.chat.completions.create(
                model=model, messages=[*user("Hi")], extra_body={"temperature": -1}
            )
    eventually(lambda: n_answered(http, status, model) > before, "it is counted")
    assert n_answered(http, status, model) == before + 1


async def test_hanging_up_frees_the_slot(
    http: httpx.Client, sdk: OpenAI, async_sdk: AsyncOpenAI
) -> None:
    """The only one there is: whoever comes next gets an answer, not a 429."""
    body = {**forced(28, 1000)}
    stream = sdk.chat.completions.create(
        model=NARROW, messages=[*user("Hi")], stream=True, extra_body=body
    )
    next(stream)
    assert scrape(http).load(NARROW) == (1, 0)
    stream.close()
    until_idle(http, NARROW)
    running = await async_sdk.chat.completions.create(
        model=NARROW, messages=[*user("Hi")], stream=True, extra_body=body
    )
    await anext(aiter(running))
    await running.close()
    until_idle(http, NARROW)
    with pytest.raises(openai.APITimeoutError):
        sdk.with_options(timeout=0.3).chat.completions.create(
            model=NARROW, messages=[*user("Hi")], extra_body={**body, "max_tokens": 1000}
        )
    until_idle(http, NARROW)
    answer = sdk.chat.completions.create(model=NARROW, messages=[*user("Hi")], max_tokens=1)
    assert answer.choices[0].finish_reason == "length"


def test_headers(sdk: OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(
        model=MODEL, messages=[*user("Hi")], max_tokens=1
    )
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"]
    assert int(raw.headers["openai-processing-ms"]) >= 0
    with sdk.chat.completions.with_streaming_response.create(
        model=MODEL, messages=[*user("Hi")], max_tokens=1, stream=True
    ) as streamed:
        assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert streamed.headers["cache-control"] == "no-cache"
        assert streamed.headers["x-accel-buffering"] == "no"
        assert streamed.headers["x-request-id"] != raw.headers["x-request-id"]
