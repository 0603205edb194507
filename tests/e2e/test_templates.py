"""Templates chosen by requests and by the configuration, on the real model."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.e2e.asking import MODEL, user
from tests.e2e.conftest import Lone
from tests.e2e.process import ANSWER_S, N_THREADS, serving, until_ready, write_config

ASK = {"messages": user("How is Bonn?"), "temperature": 0, "max_tokens": 24}
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\nHow is Bonn?\n\n### Response:\n"
)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Lone]:
    """A server whose only model has a template by configuration that its tokens do not fit."""
    engine = {"n_ctx": 512, "n_slots": 2, "n_threads": N_THREADS}
    model = {"path": str(model_path), "preload": True, "template": "gemma", "engine": engine}
    config = write_config(tmp_path_factory.mktemp("templates"), {MODEL: model})
    with serving(config) as corral:
        url = corral.wait_until_it_listens()
        with httpx.Client(base_url=url, timeout=ANSWER_S) as http:
            until_ready(http)
            yield Lone(corral, url, http)


def test_by_request(http: httpx.Client) -> None:
    body = {"model": MODEL, **ASK, "chat_template": "alpaca"}
    told = http.post("/apply-template", json=body).json()
    assert told["template"]["origin"] == "request"
    # The text of BOS and EOS is the model's own; the rest is the template's.
    assert told["prompt"] == ALPACA
    assert told["stop"] == ["### Instruction:", "</s>"]
    chat = http.post("/v1/chat/completions", json=body).json()
    completion = {"model": MODEL, "prompt": ALPACA, "temperature": 0, "max_tokens": 24}
    plain = http.post("/v1/completions", json={**completion, "stop": told["stop"]}).json()
    assert chat["choices"][0]["message"]["content"] == plain["choices"][0]["text"]
    assert chat["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]


def test_the_sdk(sdk: OpenAI) -> None:
    answer = sdk.responses.create(
        model=MODEL, input="How is Bonn?", max_output_tokens=8, temperature=0,
        extra_body={"chat_template": "raw"},
    )  # fmt: skip
    plain = sdk.completions.create(model=MODEL, prompt="How is Bonn?", max_tokens=8, temperature=0)
    assert answer.output_text == plain.choices[0].text


def test_without_a_choice_it_is_the_ggufs(http: httpx.Client) -> None:
    told = http.post("/apply-template", json={"model": MODEL, **ASK}).json()
    assert told["template"] == {"name": None, "origin": "GGUF", "reason": "the GGUF's own"}
    assert told["stop"] == []


def test_stop_strings_of_the_template_do_not_show(http: httpx.Client) -> None:
    """The model is made to write what it would, and then the next turn's beginning."""
    body = {
        "model": MODEL, **ASK, "chat_template": "vicuna",
        "grammar": 'root ::= "Fine." "\\nUSER: more"', "ignore_eos": True,
    }  # fmt: skip
    choice = http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Fine.\n", "stop")


def test_by_configuration(gemma: Lone) -> None:
    told = gemma.http.post("/apply-template", json=ASK).json()
    assert told["template"]["name"] == "gemma"
    assert told["prompt"] == (
        "<|im_start|><start_of_turn>user\nHow is Bonn?<end_of_turn>\n<start_of_turn>model\n"
    )
    assert told["stop"] == ["<end_of_turn>", "<start_of_turn>"]


def test_a_warning_at_the_start(gemma: Lone) -> None:
    told = gemma.corral.log.wait_for(r"ends answers with '<end_of_turn>'.*", ANSWER_S)
    assert told and "ends a generation begins (<|endoftext|>, <|im_end|>" in told


def test_jinja_is_off(http: httpx.Client) -> None:
    response = http.post(
        "/v1/chat/completions", json={"model": MODEL, **ASK, "chat_template": "{{ 1 }}"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "unsupported_parameter"
