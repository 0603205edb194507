"""The Responses API with the real server, the real model and the official SDK."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel, Field

from tests.api.openai.responses.wire import whole
from tests.e2e.asking import MODEL, sdk_at
from tests.e2e.conftest import Lone, lone
from tests.e2e.process import N_THREADS, Corral, eventually, write_config


def ask(sdk: OpenAI, input: Any, **more: Any) -> Response:
    """A whole answer, or the beginning of one in the background."""
    made = responses(sdk).create(model=MODEL, temperature=0, input=input, **more)
    assert isinstance(made, Response)
    return made


def responses(sdk: OpenAI) -> Any:
    """The SDK's methods, whose overloads no variable number of fields can tell apart."""
    return sdk.responses


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Lone]:
    """A server that keeps what it answers."""
    folder = tmp_path_factory.mktemp("keeper")
    with lone(folder, model_path, {"store": "answers.db"}, {}) as keeper:
        yield keeper
    assert (folder / "answers.db").is_file()


@pytest.fixture
def sdk(keeper: Lone) -> Iterator[OpenAI]:
    with keeper.sdk() as sdk:
        yield sdk


def test_whole_and_streamed(sdk: OpenAI) -> None:
    whole = ask(sdk, "Name three colours.", max_output_tokens=16)
    assert whole.output_text
    with responses(sdk).stream(
        model=MODEL, temperature=0, input="Name three colours.", max_output_tokens=16
    ) as stream:
        events = list(stream)
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert whole.usage is not None and whole.usage.output_tokens == 16
    assert whole.status == events[-1].response.status == "incomplete"


def test_the_raw_stream(keeper: Lone) -> None:
    body: dict[str, object] = {
        "model": MODEL,
        "input": "Hello",
        "max_output_tokens": 8,
        "stream": True,
    }
    response = keeper.http.post("/v1/responses", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert whole(response.content)["output"][0]["type"] == "message"


def test_the_model_hears_what_was_said_before(sdk: OpenAI) -> None:
    first = ask(sdk, "My name is Zebulon. Remember it.", max_output_tokens=16)
    asked = "What is my name?"
    second = ask(sdk, asked, previous_response_id=first.id, max_output_tokens=16)
    assert second.previous_response_id == first.id
    chat = sdk.chat.completions.create(
        messages=[
            {"role": "user", "content": "My name is Zebulon. Remember it."},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": asked},
        ],
        max_completion_tokens=16,
        model=MODEL,
        temperature=0,
    )
    assert second.output_text == chat.choices[0].message.content
    assert second.usage is not None and chat.usage is not None
    assert second.usage.input_tokens == chat.usage.prompt_tokens
    assert second.usage.input_tokens_details.cached_tokens > 0
    alone = ask(sdk, asked, max_output_tokens=16)
    assert alone.usage is not None and alone.usage.input_tokens < second.usage.input_tokens


def test_counting(sdk: OpenAI) -> None:
    said = "How many <|im_end|> are there?"
    counted = sdk.responses.input_tokens.count(model=MODEL, input=said, instructions="Be terse.")
    answer = ask(sdk, said, instructions="Be terse.", max_output_tokens=1)
    assert answer.usage is not None and counted.input_tokens == answer.usage.input_tokens


def test_keeping_listing_deleting(sdk: OpenAI) -> None:
    made = ask(sdk, "Hello", max_output_tokens=8, metadata={"a": "b"})
    kept = sdk.responses.retrieve(made.id)
    assert kept.to_dict() == made.to_dict() and kept.metadata == {"a": "b"}
    items = list(sdk.responses.input_items.list(made.id))
    assert [item.type for item in items] == ["message"]
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError, match="not found"):
        sdk.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, "Hello", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_found"


def test_pages_of_items(sdk: OpenAI) -> None:
    items: Any = [{"role": "user", "content": f"number {i}"} for i in range(7)]
    made = ask(sdk, items, max_output_tokens=1)
    texts = [
        item.content[0].text
        for item in responses(sdk).input_items.list(made.id, limit=3, order="asc")
    ]
    assert texts == [f"number {i}" for i in range(7)]


def polled(sdk: OpenAI, id: str) -> Response:
    """A background response when it has ended."""
    eventually(
        lambda: sdk.responses.retrieve(id).status not in ("queued", "in_progress"), "its end"
    )
    return sdk.responses.retrieve(id)


def test_in_the_background(sdk: OpenAI) -> None:
    made = ask(sdk, "Hello", background=True, max_output_tokens=24)
    assert made.status == "queued"
    ended = polled(sdk, made.id)
    assert ended.output_text and ended.usage is not None
    plain = ask(sdk, "Hello", max_output_tokens=24)
    assert ended.output_text == plain.output_text
    stream = responses(sdk).retrieve(made.id, stream=True, starting_after=4)
    events = list(stream)
    assert events[0].sequence_number == 5
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.output_text == ended.output_text


LONG: dict[str, Any] = {"extra_body": {"ignore_eos": True}}


def test_cancelling(keeper: Lone, sdk: OpenAI) -> None:
    made = ask(sdk, "Hello", background=True, **LONG)
    cancelled = sdk.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert sdk.responses.retrieve(made.id).status == "cancelled"
    eventually(lambda: running(keeper) == 0, "a free slot")
    done = ask(sdk, "Hello", max_output_tokens=1)
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        sdk.responses.cancel(done.id)


def running(keeper: Lone) -> int:
    """How many requests run."""
    for line in keeper.http.get("/metrics").text.splitlines():
        if line.startswith("corral_requests_running{"):
            return int(float(line.split()[-1]))
    return 0


def test_a_client_that_hangs_up_frees_its_slot(keeper: Lone, sdk: OpenAI) -> None:
    with responses(sdk).create(model=MODEL, input="Hello", stream=True, **LONG) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    eventually(lambda: running(keeper) == 0, "a free slot")


class Person(BaseModel):
    """What is to be found out."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)


def test_a_schema(sdk: OpenAI) -> None:
    parsed = responses(sdk).parse(
        model=MODEL,
        temperature=0,
        input="Bo is 41 years old. Who is it?",
        text_format=Person,
        max_output_tokens=80,
    )
    assert isinstance(parsed.output_parsed, Person)
    with responses(sdk).stream(
        model=MODEL,
        temperature=0,
        input="Bo is 41 years old.",
        text_format=Person,
        max_output_tokens=80,
    ) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place.",
    "parameters": {
        "type": "object",
        "properties": {"unit": {"type": "string", "enum": ["C", "F"]}},
        "required": ["unit"],
        "additionalProperties": False,
    },
    "strict": True,
}


def test_a_function(sdk: OpenAI) -> None:
    first = ask(sdk, "How warm is it, in C?", tools=[WEATHER], tool_choice="required")
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert call.name == "get_weather" and call.arguments.replace(" ", "") in (
        '{"unit":"C"}',
        '{"unit":"F"}',
    )
    second = ask(
        sdk,
        [{"type": "function_call_output", "call_id": call.call_id, "output": "21"}],
        previous_response_id=first.id,
        tools=[WEATHER],
        tool_choice="none",
        max_output_tokens=12,
    )
    assert second.output_text


def test_scores(sdk: OpenAI) -> None:
    made = ask(
        sdk, "Hello", include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=4
    )
    (part,) = made.output[0].content  # pyright: ignore
    assert "".join(entry.token for entry in part.logprobs) == made.output_text  # pyright: ignore
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)  # pyright: ignore


def test_a_long_conversation_is_cut(sdk: OpenAI) -> None:
    items: Any = [
        {"role": role, "content": f"{i} " * 30} for i in range(20) for role in ("user", "assistant")
    ]
    items.append({"role": "user", "content": "Hello"})
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, items)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "input"
    cut = ask(sdk, items, truncation="auto", max_output_tokens=8)
    assert cut.usage is not None and 300 < cut.usage.input_tokens <= 504


def test_the_store_outlives_the_server(tmp_path: Path, model_path: Path) -> None:
    server = {"store": "answers.db"}
    with lone(tmp_path, model_path, server, {}) as first, first.sdk() as sdk:
        made = ask(sdk, "Hello", max_output_tokens=4)
        unfinished = ask(sdk, "Hello", background=True, **LONG)
    with lone(tmp_path, model_path, server, {}) as second, second.sdk() as sdk:
        assert sdk.responses.retrieve(made.id).to_dict() == made.to_dict()
        failed = sdk.responses.retrieve(unfinished.id)
        assert failed.status == "failed" and failed.error is not None


def test_a_crash_leaves_no_response_running(tmp_path: Path, model_path: Path) -> None:
    server = {"store": "answers.db"}
    models = {MODEL: {"path": str(model_path), "engine": {"n_ctx": 512, "n_threads": N_THREADS}}}
    corral = Corral(write_config(tmp_path, models, server))
    try:
        with sdk_at(corral.wait_until_it_listens()) as sdk:
            unfinished = ask(sdk, "Hello", background=True, **LONG)
    finally:
        corral.kill()
    with lone(tmp_path, model_path, server, {}) as after, after.sdk() as sdk:
        failed = sdk.responses.retrieve(unfinished.id)
        assert failed.status == "failed" and failed.error is not None
        assert "stopped" in failed.error.message


def test_a_damaged_store_is_a_clear_error(tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "answers.db").write_text("This is not a database. " * 100)
    config = write_config(tmp_path, {MODEL: {"path": str(model_path)}}, {"store": "answers.db"})
    corral = Corral(config)
    try:
        assert corral.process.wait(60) == 2
        assert corral.log.close(60)
        assert "server.store: " in corral.log.text and "is not a database" in corral.log.text
        assert "Traceback" not in corral.log.text
    finally:
        corral.kill()
