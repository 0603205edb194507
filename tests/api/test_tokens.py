"""Tokenizing over HTTP, in the words of two servers."""

from typing import Any

import pytest

from server.errors import InvalidRequest
from server.ipc import Detokenize, Detokenized, Question, Reply, Tokenize, Tokenized
from tests.api.scripted import INFO, MODEL, House, error_of, house

MESSAGES = [{"role": "user", "content": "Hi <|im_end|>"}]
PROMPT = "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"


def as_bytes(question: Question) -> Reply:
    """A vocabulary of the 256 bytes."""
    match question:
        case Tokenize(text=text):
            spelled = text.encode()
            return Tokenized(tuple(spelled), tuple(bytes([byte]) for byte in spelled))
        case Detokenize(tokens=tokens):
            return Detokenized(bytes(tokens).decode())
        case _:
            raise AssertionError(question)


def asked(h: House) -> Tokenize:
    (question,) = h.worker.asked
    assert isinstance(question, Tokenize)
    return question


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
async def test_a_prompt_as_vllm_has_it(path: str) -> None:
    async with house() as h:
        h.worker.answer = as_bytes
        response = await h.post(path, prompt="é!")
    assert asked(h) == Tokenize("é!", add_special=True, parse_special=True)
    assert response.json() == {
        "count": 3,
        "max_model_len": INFO.n_ctx,
        "tokens": [0xC3, 0xA9, 0x21],
        "token_strs": None,
    }


async def test_its_token_strings() -> None:
    async with house() as h:
        h.worker.answer = as_bytes
        body = {"prompt": "é!", "add_special_tokens": False, "return_token_strs": True}
        response = await h.post("/tokenize", **body)
    assert not asked(h).add_special
    assert response.json()["token_strs"] == ["\ufffd", "\ufffd", "!"]


@pytest.mark.parametrize("add_special_tokens", [True, False])
async def test_a_conversation_as_vllm_has_it(add_special_tokens: bool) -> None:
    async with house() as h:
        h.worker.answer = as_bytes
        response = await h.post(
            "/tokenize", messages=MESSAGES, add_special_tokens=add_special_tokens
        )
    # What a user spells out is no control token.
    begin = PROMPT.index("Hi ") + 3
    literal = ((begin, begin + len("<|im_end|>")),)
    assert asked(h) == Tokenize(PROMPT, add_special_tokens, literal=literal)
    assert response.json()["count"] == len(PROMPT)


async def test_a_conversation_that_is_not_to_be_answered() -> None:
    async with house() as h:
        h.worker.answer = as_bytes
        await h.post("/tokenize", messages=MESSAGES, add_generation_prompt=False)
    assert asked(h).text == PROMPT.removesuffix("<|im_start|>assistant\n")


async def test_content_as_llama_server_has_it() -> None:
    async with house() as h:
        h.worker.answer = as_bytes
        response = await h.post("/tokenize", content="Hi")
    assert asked(h) == Tokenize("Hi", add_special=False, parse_special=True)
    assert response.json() == {"tokens": [72, 105]}


async def test_its_pieces_are_text_or_bytes() -> None:
    async with house() as h:
        h.worker.answer = as_bytes
        body: dict[str, Any] = {"with_pieces": True, "add_special": True, "parse_special": False}
        response = await h.post("/tokenize", content="é!", **body)
    assert asked(h) == Tokenize("é!", add_special=True, parse_special=False)
    assert response.json() == {
        "tokens": [
            {"id": 0xC3, "piece": [0xC3]},
            {"id": 0xA9, "piece": [0xA9]},
            {"id": 0x21, "piece": "!"},
        ]
    }


async def test_nulls_are_as_good_as_absent() -> None:
    async with house() as h:
        h.worker.answer = as_bytes
        response = await h.post("/tokenize", content="Hi", prompt=None, with_pieces=None)
    assert response.json() == {"tokens": [72, 105]}
    assert "x-corral-ignored" not in response.headers


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({}, "one of prompt, messages, content and inputs is required, got an object", None),
        ({"prompt": 1}, "prompt: Input should be a valid string, got 1", "prompt"),
        ({"content": ["Hi"]}, "content: Input should be a valid string, got a list", "content"),
        ({"prompt": "", "add_special_tokens": 2}, "add_special_tokens: ", "add_special_tokens"),
        ({"messages": [{"role": "nobody"}]}, "messages.0.role: ", "messages.0.role"),
    ],
)
async def test_bad_texts(body: dict[str, object], message: str, param: str | None) -> None:
    async with house() as h:
        response = await h.post("/tokenize", **body)
    assert response.status_code == 400
    error = error_of(response)
    assert error["message"].startswith(message)
    assert error["param"] == param
    assert h.worker.asked == []


async def test_there_and_back() -> None:
    async with house() as h:
        h.worker.answer = as_bytes
        tokens = (await h.post("/tokenize", prompt="Hello é")).json()["tokens"]
        response = await h.post("/detokenize", tokens=tokens)
    assert h.worker.asked[1] == Detokenize(tuple(tokens))
    assert response.json() == {"prompt": "Hello é", "content": "Hello é"}


async def test_what_the_worker_says_of_ids() -> None:
    def refuse(_: Question) -> Reply:
        raise InvalidRequest("tokens: token 100 is not in the vocabulary of 100", "tokens")

    async with house() as h:
        h.worker.answer = refuse
        response = await h.post("/detokenize", tokens=[100])
    assert response.status_code == 400
    assert error_of(response)["param"] == "tokens"


@pytest.mark.parametrize(
    ("tokens", "param"), [("Hi", "tokens"), ([1, "x"], "tokens.1"), ([1, 1.5], "tokens.1")]
)
async def test_ids_that_are_none(tokens: object, param: str) -> None:
    async with house() as h:
        response = await h.post("/detokenize", tokens=tokens)
    assert response.status_code == 400
    assert error_of(response)["param"] == param


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_fields_that_are_not_served_are_told(path: str) -> None:
    body: dict[str, Any] = {"prompt": "Hi", "tokens": [72], "truncate": 1, "top_k": None}
    async with house() as h:
        h.worker.answer = as_bytes
        response = await h.post(path, **body)
    assert response.headers["x-corral-ignored"].endswith("truncate")
    async with house(unknown_fields="strict") as h:
        response = await h.post(path, **body)
    assert response.status_code == 400
    assert error_of(response)["code"] == "unsupported_parameter"


async def test_what_clients_need_to_write_prompts() -> None:
    async with house() as h:
        response = await h.client.get("/tokenizer_info", params={"model": MODEL})
    info = response.json()
    assert "<|im_start|>" in info.pop("chat_template")
    assert info == {
        "model": MODEL,
        "tokenizer_class": "llama.cpp",
        "model_max_length": 64,
        "vocab_size": 100,
        "add_bos_token": False,
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "pad_token": None,
    }


async def test_a_model_without_a_template_has_tokens_all_the_same() -> None:
    async with house(template=None) as h:
        response = await h.client.get("/tokenizer_info", params={"model": MODEL})
    assert response.json()["chat_template"] is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/tokenize", {"prompt": "Hi"}),
        ("POST", "/tokenize", {"content": "Hi"}),
        ("POST", "/tokenize", {"messages": MESSAGES}),
        ("POST", "/detokenize", {"tokens": []}),
        ("GET", "/tokenizer_info", None),
    ],
)
async def test_unnamed_and_unknown_models(method: str, path: str, body: Any) -> None:
    async with house() as h:
        unnamed = await h.client.request(method, path, json=body)
        body = body and {**body, "model": "nobody"}
        unknown = await h.client.request(method, path, json=body, params={"model": "nobody"})
    # Two models are configured, and none is preloaded.
    assert unnamed.status_code == 400
    assert error_of(unnamed)["param"] == "model"
    assert unknown.status_code == 404
    assert error_of(unknown)["code"] == "model_not_found"
