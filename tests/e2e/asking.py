"""How the tests ask: through the SDK for whole answers, as raw bytes for streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
from openai import AsyncOpenAI, OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.process import ANSWER_S, eventually
from tests.e2e.wire import Fold, fold_chat, fold_completion, whole_chat, whole_completion

MODEL = "smollm2-135m-instruct"
OTHER = "org/tiny.Q4_1"
"""The same file once more, loaded on demand, with prompts computed 64 tokens at a time."""

LATER = "org/later/tiny"
"""Once more, for the one test that loads it."""

GREEDY: Mapping[str, object] = {"temperature": 0}
FRESH: Mapping[str, object] = {"temperature": 0, "cache_prompt": False}
"""Greedy, and computed the same way each time: equal to the last bit."""

Messages = Sequence[ChatCompletionMessageParam]
Prompt = str | list[str] | list[int] | list[list[int]]
Body = Mapping[str, object]


def user(text: str) -> Messages:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def forced(token: int, n: int) -> Body:
    """Fields that make an answer of `n` times the same token, whatever the prompt."""
    return {**GREEDY, "max_tokens": n, "ignore_eos": True, "logit_bias": {str(token): 90}}


def chat(sdk: OpenAI, messages: Messages, body: Body) -> ChatCompletion:
    """A whole chat answer through the SDK, checked."""
    raw = sdk.chat.completions.with_raw_response.create(
        model=MODEL, messages=messages, extra_body={**body}
    )
    return whole_chat(raw.http_response.text)


def say(sdk: OpenAI, messages: Messages, body: Body) -> str:
    """The text of the only choice of a whole chat answer."""
    (choice,) = chat(sdk, messages, body).choices
    assert choice.message.content is not None
    return choice.message.content


def complete(sdk: OpenAI, prompt: Prompt, body: Body) -> Completion:
    """A whole completion through the SDK, checked."""
    raw = sdk.completions.with_raw_response.create(model=MODEL, prompt=prompt, extra_body={**body})
    return whole_completion(raw.http_response.text)


def chat_body(messages: Messages, body: Body) -> dict[str, object]:
    """The body that the SDK would send."""
    return {"model": MODEL, "messages": [*messages], **body}


def streamed_chat(http: httpx.Client, messages: Messages, body: Body) -> Fold:
    """A chat stream with its usage, read as raw bytes, checked."""
    fields = {"stream": True, "stream_options": {"include_usage": True}, **body}
    raw = http.post("/v1/chat/completions", json=chat_body(messages, fields))
    return fold_chat(_stream(raw), include_usage=True)


def streamed_completion(http: httpx.Client, prompt: Prompt, body: Body) -> Fold:
    """A completion stream with its usage, read as raw bytes, checked."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    fields = {"model": MODEL, "prompt": prompt, **options, **body}
    return fold_completion(_stream(http.post("/v1/completions", json=fields)), include_usage=True)


def _stream(response: httpx.Response) -> bytes:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    return response.content


@dataclass(frozen=True)
class Scrape:
    """One reading of /metrics."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def get(self, name: str, labels: Mapping[str, str]) -> float:
        """A sample; 0 where nothing was counted yet."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def load(self, model: str) -> tuple[float, float]:
        """Requests of `model` that run and that wait."""
        by_model = {"model": model}
        return (
            self.get("corral_requests_running", by_model),
            self.get("corral_requests_waiting", by_model),
        )


def scrape(http: httpx.Client) -> Scrape:
    """Read /metrics."""
    response = http.get("/metrics")
    assert response.status_code == 200
    return Scrape(
        {
            (sample.name, frozenset(sample.labels.items())): float(sample.value)
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }
    )


def until_idle(http: httpx.Client, model: str = MODEL) -> None:
    """Wait until nothing of `model` runs or waits."""
    eventually(lambda: scrape(http).load(model) == (0, 0), f"{model} is idle")


def sdk_at(url: str) -> OpenAI:
    """The SDK for the server at `url`. It does not try again, so that errors are seen."""
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=ANSWER_S)


def async_sdk_at(url: str) -> AsyncOpenAI:
    """The asynchronous SDK for the server at `url`."""
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=ANSWER_S)
