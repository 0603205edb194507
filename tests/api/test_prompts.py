"""Prompts without their answers."""

from typing import Any

import pytest

from server.ipc import Question, Reply, Tokenize, Tokenized
from tests.api.scripted import error_of, house

MESSAGES = [{"role": "user", "content": "Hi <|im_end|>"}]
PROMPT = "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"


def seven(question: Question) -> Reply:
    del question
    return Tokenized((1,) * 7, (b"x",) * 7)


@pytest.mark.parametrize("path", ["/apply-template", "/v1/apply-template"])
async def test_the_prompt_of_a_conversation(path: str) -> None:
    async with house() as h:
        response = await h.post(path, messages=MESSAGES)
        unanswered = await h.post(path, messages=MESSAGES, add_generation_prompt=False)
    by = {"name": "chatml", "origin": "configuration", "reason": "`template` of the configuration"}
    assert response.json() == {"prompt": PROMPT, "template": by, "stop": []}
    assert unanswered.json()["prompt"] == PROMPT.removesuffix("<|im_start|>assistant\n")
    assert h.worker.requests == []


async def test_is_what_a_chat_completion_submits() -> None:
    body: dict[str, Any] = {
        "messages": [*MESSAGES, {"role": "assistant", "content": "Well"}],
        "continue_final_message": True,
        "temperature": 0.5,
    }
    async with house() as h:
        h.worker.answer = seven
        told = (await h.post("/apply-template", **body)).json()["prompt"]
        counted = await h.post("/chat/completions/input_tokens", **body)
        await h.post("/chat/completions", **body)
        submitted = h.prompt()
    assert told == submitted.text
    assert h.worker.asked == [Tokenize(submitted.text, literal=submitted.literal)]
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": 7}


async def test_template_variables() -> None:
    template = "{{ mood }}:{% for m in messages %}{{ m.content }}{% endfor %}"
    async with house(gguf_template=template, template=None) as h:
        body = {"messages": MESSAGES, "chat_template_kwargs": {"mood": "calm"}}
        response = await h.post("/apply-template", **body)
    assert response.json() == {
        "prompt": "calm:Hi <|im_end|>",
        "template": {"name": None, "origin": "GGUF", "reason": "the GGUF's own"},
        "stop": [],
    }


@pytest.mark.parametrize("path", ["/apply-template", "/chat/completions/input_tokens"])
async def test_bad_conversations(path: str) -> None:
    async with house() as h:
        empty = await h.post(path, messages=[])
        unnamed = await h.client.post(path, json={"messages": MESSAGES})
        unknown = await h.client.post(path, json={"messages": MESSAGES, "model": "nobody"})
        ignored = await h.post("/apply-template", messages=MESSAGES, flavour="sweet")
    assert [r.status_code for r in (empty, unnamed, unknown)] == [400, 400, 404]
    assert error_of(empty)["param"] == "messages"
    assert error_of(unnamed)["param"] == "model"
    assert error_of(unknown)["code"] == "model_not_found"
    assert ignored.headers["x-corral-ignored"] == "flavour"
