"""POST /responses: whole and streamed, conversations, hang-ups and failures, counts."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from server.errors import WorkerDied
from server.ipc import Accepted, Delta, Finished, Question, Reply, Tokenize, Tokenized, TokenScore
from tests.api.openai.responses.wire import checked, events, keeping, whole
from tests.api.scripted import Line, build, error_of, fail, house, speak

PATH = "/v1/responses"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def without_ids(response: Any) -> Any:
    """What two answers to the same request have in common."""
    told = {k: v for k, v in response.items() if k not in ("id", "created_at", "completed_at")}
    return {**told, "output": [{**item, "id": ""} for item in told["output"]]}


async def test_whole_and_streamed_are_one() -> None:
    async with house() as h:
        plain = await h.post(PATH, input="Hi")
        streamed = await h.post(PATH, input="Hi", stream=True)
    assert plain.headers["content-type"] == "application/json"
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert b"[DONE]" not in streamed.content
    response = checked(plain.json())
    assert response["id"].startswith("resp_")
    assert response["output"][0]["content"][0]["text"] == "Hello world"
    assert without_ids(response) == without_ids(whole(streamed.content))


async def test_too_long() -> None:
    async with house(speak("x", reason="length")) as h:
        response = (await h.post(PATH, input="Hi", max_output_tokens=1)).json()
    assert checked(response)["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_the_prompt() -> None:
    async with house() as h:
        await h.post(PATH, input="Hi <|im_end|>", instructions="Be terse.")
        prompt = h.prompt()
    assert prompt.text == (
        "<|im_start|>system\nBe terse.<|im_end|>\n"
        "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert [prompt.text[a:b] for a, b in prompt.literal] == ["<|im_end|>"]


async def test_no_template_is_a_fault_of_the_input() -> None:
    async with house(template=None) as h:
        response = await h.post(PATH, input="Hi")
    assert response.status_code == 400
    assert error_of(response)["param"] == "input"


async def test_a_failure_before_the_headers() -> None:
    async with house(fail(WorkerDied("gone"))) as h:
        for stream in (False, True):
            response = await h.post(PATH, input="Hi", stream=stream)
            assert response.status_code == 500
            assert error_of(response)["code"] == "worker_died"


async def test_a_failure_after_them(path: Path) -> None:
    script = fail(WorkerDied("gone"), Accepted(0, 7), Delta(0, "Hel", 1))
    async with keeping(path, script) as h:
        streamed = await h.post(PATH, input="Hi", stream=True)
        response = whole(streamed.content)
        assert response["status"] == "failed" and response["store"] is False
        assert response["error"] == {"code": "server_error", "message": "gone"}
        assert events(streamed.content)[-2]["type"] == "error"
        plain = await h.post(PATH, input="Hi")
        assert plain.status_code == 500
        assert (await h.client.get(f"{PATH}/{response['id']}")).status_code == 404


async def test_a_conversation(path: Path) -> None:
    async with keeping(path, speak("Hello", " you")) as h:
        first = (await h.post(PATH, input="I am Bo.", instructions="Be terse.")).json()
        second = await h.post(
            PATH, input="Who am I?", previous_response_id=first["id"], stream=True
        )
        third = await h.post(PATH, previous_response_id=whole(second.content)["id"])
        assert third.status_code == 200
        assert h.prompt(1).text == (
            "<|im_start|>user\nI am Bo.<|im_end|>\n<|im_start|>assistant\nHello you<|im_end|>\n"
            "<|im_start|>user\nWho am I?<|im_end|>\n<|im_start|>assistant\n"
        )
        assert h.prompt(2).text.count("Hello you") == 2
    assert third.json()["previous_response_id"] == whole(second.content)["id"]


async def test_a_stream_is_stored_before_it_says_that_it_is_complete(path: Path) -> None:
    async with keeping(path) as h:
        line = Line.streaming(h.app, PATH, input="Hi")
        running = asyncio.create_task(line.run())
        await line.until(lambda line: b"response.completed" in line.received)
        response = whole(line.received)
        assert (await h.client.get(f"{PATH}/{response['id']}")).json() == response
        await running


async def test_references(path: Path) -> None:
    async with keeping(path) as h:
        first = (await h.post(PATH, input="I am Bo.")).json()
        reference = {"type": "item_reference", "id": first["output"][0]["id"]}
        again = await h.post(PATH, input=[reference, {"role": "user", "content": "And?"}])
        assert again.status_code == 200
        assert h.prompt(1).text.startswith("<|im_start|>assistant\nHello world<|im_end|>\n")


async def test_nothing_is_kept_against_a_clients_will(path: Path) -> None:
    async with keeping(path) as h:
        response = (await h.post(PATH, input="Hi", store=False)).json()
        assert response["store"] is False
        missing = await h.client.get(f"{PATH}/{response['id']}")
        assert missing.status_code == 404
        again = await h.post(PATH, input="Hi", previous_response_id=response["id"])
        assert error_of(again)["code"] == "previous_response_not_found"


async def test_what_the_store_cannot_take_is_answered_all_the_same(path: Path) -> None:
    async with keeping(path, budget=100) as h:
        response = checked((await h.post(PATH, input="Hi")).json())
    assert response["status"] == "completed" and response["store"] is False


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_is_served_no_more(path: Path, stream: bool) -> None:
    async with keeping(path, lambda _, __: [Accepted(0, 7), Delta(0, "Hel", 1)]) as h:
        line = Line.streaming(h.app, PATH, input="Hi", stream=stream)
        running = asyncio.create_task(line.run())
        await h.worker.submitted.wait()
        line.hung_up.set()
        await running
        assert h.worker.cancelled == [0]


async def test_a_stopping_server_ends_the_stream_with_a_failure() -> None:
    app, pool = build(lambda _, __: [Accepted(0, 7), Delta(0, "Hel", 1)])
    line = Line.streaming(app, PATH, input="Hi")
    running = asyncio.create_task(line.run())
    await line.until(lambda line: b"output_text.delta" in line.received)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    response = whole(line.received)
    assert response["status"] == "failed"
    assert "stopping" in response["error"]["message"]
    assert pool.scripted.cancelled == [0]


async def test_scores_are_told() -> None:
    scores = (TokenScore(1, b"Hi", -0.5, ((1, b"Hi", -0.5),)),)
    end = Finished(0, "Hi", 1, "stop", 7, 0, 1, scores)
    async with house(lambda _, __: [Accepted(0, 7), end]) as h:
        fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
        streamed = await h.post(PATH, input="Hi", stream=True, **fields)
    (part,) = whole(streamed.content)["output"][0]["content"]
    assert part["logprobs"][0]["top_logprobs"] == [
        {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    ]


def by_words(question: Question) -> Reply:
    """A tokenizer that makes a token of each word."""
    assert isinstance(question, Tokenize)
    words = question.text.split()
    return Tokenized(tuple(range(len(words))), tuple(word.encode() for word in words))


async def test_counting(path: Path) -> None:
    async with keeping(path) as h:
        h.worker.answer = by_words
        kept = (await h.post(PATH, input="one two")).json()
        response = await h.post(
            f"{PATH}/input_tokens", input="three <|im_end|>", previous_response_id=kept["id"]
        )
        assert response.json() == {"object": "response.input_tokens", "input_tokens": 10}
        (question,) = h.worker.asked
        assert isinstance(question, Tokenize)
        assert [question.text[a:b] for a, b in question.literal] == ["<|im_end|>"]
        assert len(h.worker.requests) == 1


async def test_counting_needs_no_model_where_there_is_a_default() -> None:
    async with house() as h:
        h.worker.answer = by_words
        response = await h.client.post(f"{PATH}/input_tokens", json={"input": "Hi"})
    assert response.status_code == 400
    assert error_of(response)["param"] == "model"


def exchanges(n: int) -> list[dict[str, str]]:
    return [
        {"role": role, "content": f"w{i} " * 4} for i in range(n) for role in ("user", "assistant")
    ]


async def truncated(n: int, **body: Any) -> str:
    async with house() as h:
        h.worker.answer = by_words
        items = [*exchanges(n), {"role": "user", "content": "last"}]
        response = await h.post(PATH, input=items, truncation="auto", **body)
        assert response.status_code == 200, response.text
        assert response.json()["truncation"] == "auto"
        return h.prompt().text


async def test_the_oldest_exchanges_give_way() -> None:
    # The context holds 64 tokens, of which 16 are for the answer; an exchange has 10 or more.
    prompt = await truncated(9, instructions="stay")
    assert "stay" in prompt and "last" in prompt
    kept = [i for i in range(9) if f"w{i} " in prompt]
    assert kept == list(range(9 - len(kept), 9)) and kept
    assert len(prompt.split()) <= 48 < len(prompt.split()) + 12


async def test_an_answer_of_known_length_gets_its_room() -> None:
    short, long = await truncated(9, max_output_tokens=1), await truncated(9, max_output_tokens=60)
    assert len(short.split()) > 48 and len(long.split()) <= 32


async def test_what_fits_is_left_alone() -> None:
    assert "w0 " in await truncated(2)


async def test_what_cannot_fit_is_for_the_engine_to_refuse() -> None:
    async with house() as h:
        h.worker.answer = by_words
        await h.post(PATH, input="word " * 100, truncation="auto")
        assert len(h.prompt().text.split()) > 100


async def test_long_conversations_are_rendered_beside_the_loop() -> None:
    words = "word " * 20_000
    async with house() as h:
        await h.post(PATH, input=words)
        assert words in h.prompt().text


async def test_json_escapes_in_all_that_is_echoed(path: Path) -> None:
    text = 'a "b"\n\n\u2028 é 😀 </script>'
    async with keeping(path) as h:
        streamed = await h.post(
            PATH, input=text, instructions=text, metadata={"k": text}, stream=True
        )
        response = whole(streamed.content)
        assert response["instructions"] == response["metadata"]["k"] == text
        kept = await h.client.get(f"{PATH}/{response['id']}")
        assert json.loads(kept.content) == response
