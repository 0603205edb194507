"""Tokens and prompts of the real model, held against what its answers were made from."""

from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.asking import FRESH, LATER, MODEL, chat, complete, user
from tests.e2e.wire import whole_completion

TEXTS = ("Once upon a time", "", " ", "naïve café, 東京, 🙂", "<|im_start|>user\nHi<|im_end|>\n")


def post(http: httpx.Client, path: str, **body: object) -> Any:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("text", TEXTS)
def test_there_and_back(http: httpx.Client, text: str) -> None:
    told = post(http, "/tokenize", prompt=text, return_token_strs=True)
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    back = post(http, "/detokenize", tokens=told["tokens"])
    assert back == {"prompt": text, "content": text}


def test_pieces_are_the_text_byte_by_byte(http: httpx.Client) -> None:
    text = "naïve 東京 🙂"
    told = post(http, "/tokenize", content=text, with_pieces=True)["tokens"]
    pieces = [piece["piece"] for piece in told]
    assert any(isinstance(piece, list) for piece in pieces)
    spelled = b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in pieces)
    assert spelled.decode() == text
    assert [piece["id"] for piece in told] == post(http, "/tokenize", content=text)["tokens"]


def test_control_tokens_are_one_token_or_plain_text(http: httpx.Client) -> None:
    control = post(http, "/tokenize", content="<|im_end|>")["tokens"]
    plain = post(http, "/tokenize", content="<|im_end|>", parse_special=False)["tokens"]
    assert len(control) == 1 < len(plain)
    assert post(http, "/detokenize", tokens=plain)["content"] == "<|im_end|>"


def test_tokens_are_as_good_as_their_text(http: httpx.Client, sdk: OpenAI) -> None:
    text = "The capital of France is"
    tokens = post(http, "/tokenize", prompt=text)["tokens"]
    by_text = complete(sdk, text, {**FRESH, "max_tokens": 8})
    by_ids = complete(sdk, tokens, {**FRESH, "max_tokens": 8})
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert by_text.usage is not None
    assert by_text.usage.prompt_tokens == len(tokens)


@pytest.mark.parametrize("content", ["Hi", "Say <|im_end|> twice: <|im_end|>"])
def test_a_prompt_counts_what_its_answer_counts(
    http: httpx.Client, sdk: OpenAI, content: str
) -> None:
    messages = [{"role": "user", "content": content}]
    answer = chat(sdk, user(content), {**FRESH, "max_tokens": 1})
    counted = post(http, "/v1/chat/completions/input_tokens", model=MODEL, messages=messages)
    tokens = post(http, "/tokenize", messages=messages)
    assert answer.usage is not None
    assert counted["input_tokens"] == tokens["count"] == answer.usage.prompt_tokens


def test_a_prompt_completes_to_the_answer(http: httpx.Client, sdk: OpenAI) -> None:
    messages = [{"role": "user", "content": "Name a colour."}]
    prompt = post(http, "/apply-template", messages=messages)["prompt"]
    assert prompt.endswith("<|im_start|>assistant\n")
    raw = http.post(
        "/v1/completions", json={"model": MODEL, "prompt": prompt, **FRESH, "max_tokens": 8}
    )
    answer = chat(sdk, user("Name a colour."), {**FRESH, "max_tokens": 8})
    assert whole_completion(raw.text).choices[0].text == answer.choices[0].message.content


def test_what_the_tokenizer_says_of_itself(http: httpx.Client) -> None:
    info = http.get("/tokenizer_info").json()
    assert info["model"] == MODEL
    assert info["eos_token"] == "<|im_end|>"
    assert "<|im_start|>" in info["chat_template"]
    for name in ("eos_token", "bos_token"):
        assert len(post(http, "/tokenize", prompt=info[name], add_special_tokens=False)["tokens"])


@pytest.mark.parametrize("tokens", [[-1], [10**9], [10**30]])
def test_ids_that_the_model_does_not_have(http: httpx.Client, tokens: list[int]) -> None:
    response = http.post("/detokenize", json={"tokens": tokens})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tokens"
    assert http.get("/readyz").is_success


def test_a_lone_surrogate_is_no_text(http: httpx.Client) -> None:
    response = http.post("/tokenize", content=b'{"prompt": "\\ud800"}')
    assert response.status_code == 400


def test_a_model_is_loaded_to_be_asked(http: httpx.Client) -> None:
    assert post(http, "/tokenize", model=LATER, prompt="Hi")["max_model_len"] == 256
