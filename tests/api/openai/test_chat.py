"""POST /v1/chat/completions: what it takes and what it answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from server.api.openai.logprobs import chat_logprobs
from server.errors import ContextLengthExceeded
from server.ipc import Accepted, Delta, Event, Finished, GenerateRequest, Grammar, TokenScore
from server.sampling import SamplingParams
from tests.api.scripted import MODEL, error_of, events, fail, house, speak

USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 3,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


class TestWhole:
    async def test_the_whole_answer(self) -> None:
        async with house() as h:
            response = await h.chat()
        assert response.headers["content-type"] == "application/json"
        body = response.json()
        ChatCompletion.model_validate(body, strict=True)
        assert body.pop("id").startswith("chatcmpl-")
        assert isinstance(body.pop("created"), int)
        assert body.pop("system_fingerprint").startswith("fp_")
        assert body == {
            "object": "chat.completion",
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hello world", "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
        }

    async def test_many_choices(self) -> None:
        async with house(speak("x", reason="length")) as h:
            body = (await h.chat(n=3)).json()
        assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
        assert {choice["finish_reason"] for choice in body["choices"]} == {"length"}
        assert body["usage"]["prompt_tokens"] == 7
        assert body["usage"]["completion_tokens"] == 3

    async def test_an_empty_answer(self) -> None:
        async with house(speak("")) as h:
            body = (await h.chat()).json()
        assert body["choices"][0]["message"]["content"] == ""


SCORES = (
    TokenScore(5, "é".encode()[:1], -0.25, ((5, b"\xc3", -0.25), (6, b"a", -2.0))),
    TokenScore(7, "é".encode()[1:], -0.5, ((7, b"\xa9", -0.5), (6, b"a", -3.0))),
)


def scoring(_: int, __: GenerateRequest) -> Sequence[Event]:
    """One character of two tokens, and the token that ends the answer."""
    end = TokenScore(2, b"", -0.125, ((2, b"", -0.125),))
    return [Accepted(0, 7), Delta(0, "é", 2, SCORES), Finished(0, "", 1, "stop", 7, 0, 3, (end,))]


class TestLogprobs:
    async def test_the_whole_answer(self) -> None:
        async with house(scoring) as h:
            body = (await h.chat(logprobs=True, top_logprobs=2)).json()
        ChatCompletion.model_validate(body, strict=True)
        logprobs = body["choices"][0]["logprobs"]
        assert logprobs == chat_logprobs(SCORES)
        assert b"".join(bytes(entry["bytes"]) for entry in logprobs["content"]) == "é".encode()

    async def test_the_chunks(self) -> None:
        async with house(scoring) as h:
            response = await h.chat(logprobs=True, top_logprobs=2, stream=True)
        chunks = events(response.content)[:-1]
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk, strict=True)
        told = [chunk["choices"][0]["logprobs"] for chunk in chunks]
        # The role, the text, and the end, whose token has no text.
        assert told == [None, chat_logprobs(SCORES), None]


class TestStream:
    async def test_the_chunks(self) -> None:
        async with house() as h:
            response = await h.chat(stream=True)
        *chunks, done = events(response.content)
        assert done == "[DONE]"
        head = {key: chunks[0][key] for key in ("id", "created", "model", "system_fingerprint")}
        assert head["id"].startswith("chatcmpl-") and head["model"] == MODEL
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk, strict=True)
            assert chunk.items() >= head.items()
            assert set(chunk) == {*head, "object", "choices"}
            assert chunk["object"] == "chat.completion.chunk"
        assert [chunk["choices"] for chunk in chunks] == [
            [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
            for delta, reason in (
                ({"role": "assistant", "content": "", "refusal": None}, None),
                ({"content": "Hello wor"}, None),
                ({"content": "ld"}, None),
                ({}, "stop"),
            )
        ]

    async def test_usage_is_one_more_chunk(self) -> None:
        async with house() as h:
            options = {"include_usage": True, "include_obfuscation": True}
            response = await h.chat(stream=True, stream_options=options)
        *chunks, usage, done = events(response.content)
        assert done == "[DONE]"
        assert "x-corral-ignored" not in response.headers
        assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
        assert usage["choices"] == [] and usage["usage"] == USAGE
        assert usage["id"] == chunks[0]["id"] and usage["created"] == chunks[0]["created"]
        ChatCompletionChunk.model_validate(usage, strict=True)

    @pytest.mark.parametrize(
        "options", [None, {}, {"include_usage": False}, {"include_usage": None}]
    )
    async def test_no_usage_unless_asked(self, options: object) -> None:
        async with house() as h:
            response = await h.chat(stream=True, stream_options=options)
        assert b"usage" not in response.content

    async def test_each_choice_has_one_role_and_one_end(self) -> None:
        async with house() as h:
            response = await h.chat(stream=True, n=3)
        by_index: dict[int, list[Any]] = {0: [], 1: [], 2: []}
        for chunk in events(response.content)[:-1]:
            (choice,) = chunk["choices"]
            by_index[choice["index"]].append(choice)
        for choices in by_index.values():
            assert "role" in choices[0]["delta"]
            assert all("role" not in choice["delta"] for choice in choices[1:])
            assert [choice["finish_reason"] for choice in choices][-1] == "stop"
            assert all(choice["finish_reason"] is None for choice in choices[:-1])
            assert "".join(c["delta"].get("content", "") for c in choices) == "Hello world"

    async def test_an_empty_answer_has_a_role_too(self) -> None:
        async with house(speak("")) as h:
            first, last, _ = events((await h.chat(stream=True)).content)
        assert first["choices"][0]["delta"]["role"] == "assistant"
        assert last["choices"][0] == {
            "index": 0,
            "delta": {},
            "logprobs": None,
            "finish_reason": "stop",
        }

    async def test_the_exact_bytes(self) -> None:
        async with house(speak('"é')) as h:
            content = (await h.chat(stream=True)).content
        first = events(content)[0]
        head = (
            f'data: {{"id":"{first["id"]}","object":"chat.completion.chunk",'
            f'"created":{first["created"]},"model":"org/tiny",'
            f'"system_fingerprint":"{first["system_fingerprint"]}","choices":[{{"index":0,"delta":'
        )
        rest = ',"logprobs":null,"finish_reason":null}]}\n\n'
        end = ',"logprobs":null,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
        assert content.decode() == (
            f'{head}{{"role":"assistant","content":"","refusal":null}}{rest}'
            f'{head}{{"content":"\\"é"}}{rest}{head}{{}}{end}'
        )


BAD_VALUES: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "at least 1 item"),
    ({"messages": "Hi"}, "messages", 'got "Hi"'),
    ({"messages": [{"content": "Hi"}]}, "messages.0.role", "Field required"),
    ({"messages": [{"role": "boss"}]}, "messages.0.role", 'got "boss"'),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "got 5"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
        "messages.0.content.0.text",
        "got 5",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
        "messages.0.tool_calls.0.function.name",
        "Field required",
    ),
    ({"n": 0}, "n", "got 0"),
    ({"n": 17}, "n", "less than or equal to 16, got 17"),
    ({"max_tokens": 0}, "max_tokens", "got 0"),
    ({"max_completion_tokens": "lots"}, "max_completion_tokens", 'got "lots"'),
    ({"stop": ""}, "stop.0", "at least 1 character"),
    ({"stop": ["a", ""]}, "stop.1", "at least 1 character"),
    ({"stop": ["a"] * 17}, "stop", "at most 16"),
    ({"stop": 5}, "stop", "got 5"),
    ({"stream_options": {}}, "stream_options", "only allowed when stream is true"),
    ({"stream": False, "stream_options": {}}, "stream_options", "only allowed"),
    ({"stream": True, "stream_options": 1}, "stream_options", "got 1"),
    ({"stream": "perhaps", "stream_options": {}}, "stream", 'got "perhaps"'),
    ({"chat_template_kwargs": {"messages": 1}}, "chat_template_kwargs.messages", "server"),
    ({"temperature": 400}, "temperature", "less than or equal to 100, got 400"),
    ({"logprobs": "all"}, "logprobs", 'got "all"'),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "or equal to 20, got 21"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "got -1"),
    ({"top_logprobs": 2}, "top_logprobs", "only allowed when logprobs is true"),
    ({"reasoning_effort": "huge"}, "reasoning_effort", 'got "huge"'),
    (
        {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}},
        "reasoning_effort",
        "another value",
    ),
    ({"tools": [{"type": "function"}]}, "tools.0.function", "Field required"),
    ({"tool_choice": "required"}, "tool_choice", "offers no tools"),
    ({"response_format": {"type": "xml"}}, "response_format.type", 'got "xml"'),
    ({"regex": "a", "lark": "b"}, "lark", "only one field"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.tool_call_id", "needs the id"),
]


class TestRequest:
    async def test_what_reaches_the_engine(self) -> None:
        sampling = SamplingParams(temperature=0.7, top_k=5)
        async with house(sampling=sampling) as h:
            await h.chat(stop=["a", "b"], seed=7, cache_prompt=False, repetition_penalty=1.5)
            (request,) = h.worker.requests
        assert request.sampling == SamplingParams(
            temperature=0.7, top_k=5, seed=7, repeat_penalty=1.5
        )
        assert request.stop == ("a", "b")
        assert request.cache_prompt is False
        assert request.prompt_param == "messages"
        assert request.max_tokens is None

    async def test_defaults(self) -> None:
        async with house() as h:
            await h.chat(stop=None, n=None, stream=None, max_tokens=None, temperature=None)
            (request,) = h.worker.requests
        assert request.sampling == SamplingParams()
        assert (request.stop, request.max_tokens, request.cache_prompt) == ((), None, True)

    @pytest.mark.parametrize(
        ("limits", "expected"),
        [
            ({"max_tokens": 5}, 5),
            ({"max_completion_tokens": 6}, 6),
            ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
            ({"max_tokens": 5, "max_completion_tokens": None}, 5),
            ({"max_tokens": -1}, None),
        ],
    )
    async def test_limits(self, limits: dict[str, object], expected: int | None) -> None:
        async with house() as h:
            await h.chat(**limits)
        assert h.worker.requests[0].max_tokens == expected

    async def test_choices_share_the_prompt_and_have_seeds_of_their_own(self) -> None:
        async with house() as h:
            await h.chat(n=3, seed=7)
            await h.chat(n=2)
        requests = h.worker.requests
        assert [request.sampling.seed for request in requests] == [7, 8, 9, None, None]
        assert len({request.prompt for request in requests}) == 1

    @pytest.mark.parametrize(
        ("asked", "n_logprobs"),
        [
            ({"logprobs": True}, 0),
            ({"logprobs": True, "top_logprobs": 20}, 20),
            ({"logprobs": False, "top_logprobs": 0}, None),
            ({}, None),
        ],
    )
    async def test_scores(self, asked: dict[str, object], n_logprobs: int | None) -> None:
        async with house() as h:
            await h.chat(**asked)
        assert h.worker.requests[0].logprobs == n_logprobs

    async def test_the_shape_of_the_answer(self) -> None:
        async with house() as h:
            response = await h.chat(response_format={"type": "json_object"}, n=2)
        assert "x-corral-ignored" not in response.headers
        wanted = Grammar("json_schema", '{"type": "object"}', "response_format.schema")
        assert {request.grammar for request in h.worker.requests} == {wanted}

    @pytest.mark.parametrize(
        ("asked", "shown"),
        [
            ({}, "-"),
            ({"reasoning_effort": "low"}, "low-"),
            ({"reasoning_effort": "none"}, "none-False"),
            ({"chat_template_kwargs": {"reasoning_effort": "high"}}, "high-"),
            (
                {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
                "none-True",
            ),
        ],
    )
    async def test_how_much_to_think(self, asked: dict[str, object], shown: str) -> None:
        template = "{{ reasoning_effort }}-{{ enable_thinking }}"
        async with house(gguf_template=template, template=None) as h:
            assert (await h.chat(**asked)).status_code == 200
            assert h.prompt().text == shown

    async def test_one_stop_as_a_string(self) -> None:
        async with house() as h:
            await h.chat(stop="END")
        assert h.worker.requests[0].stop == ("END",)

    @pytest.mark.parametrize(("body", "param", "message"), BAD_VALUES)
    async def test_bad_values(self, body: dict[str, object], param: str, message: str) -> None:
        async with house() as h:
            response = await h.chat(**body)
        assert response.status_code == 400
        error = error_of(response)
        assert error["param"] == param
        assert error["message"].startswith(param) and message in error["message"]
        assert h.worker.requests == []

    async def test_an_unknown_model(self) -> None:
        async with house() as h:
            response = await h.chat(model="nobody")
        assert response.status_code == 404
        error = error_of(response)
        assert (error["param"], error["code"]) == ("model", "model_not_found")

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_prompt_that_is_too_long(self, stream: bool) -> None:
        error = ContextLengthExceeded("prompt of 80 tokens, context of 64", param="messages")
        async with house(fail(error)) as h:
            response = await h.chat(stream=stream)
        assert response.status_code == 400
        assert error_of(response)["code"] == "context_length_exceeded"


class TestMessages:
    async def prompt(self, *messages: Mapping[str, object], **body: object) -> str:
        async with house() as h:
            response = await h.chat(messages=messages, **body)
            assert response.status_code == 200, response.text
            return h.prompt().text

    async def test_roles(self) -> None:
        roles = ("system", "developer", "user", "assistant")
        result = {"role": "tool", "tool_call_id": "1", "content": "what came of it"}
        prompt = await self.prompt(*({"role": role, "content": role} for role in roles), result)
        assert "what came of it" in prompt
        for role in roles:
            shown = "system" if role == "developer" else role
            assert f"<|im_start|>{shown}\n{role}<|im_end|>\n" in prompt
        assert prompt.endswith("<|im_start|>assistant\n")

    async def test_parts_are_lines(self) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
        assert "user\na\nb<|im_end|>" in await self.prompt({"role": "user", "content": parts})

    @pytest.mark.parametrize("type", ["image_url", "input_audio", "file", None])
    async def test_other_parts_are_not_served(self, type: str | None) -> None:
        parts: list[dict[str, object]] = [{"type": "text", "text": "a"}, {"type": type}]
        async with house() as h:
            response = await h.chat(messages=[{"role": "user", "content": parts}])
        assert response.status_code == 400
        error = error_of(response)
        assert error["param"] == "messages.0.content.1.type"
        assert error["code"] == "unsupported_parameter"
        assert (type or "null") in error["message"]

    async def test_fields_reach_the_template(self) -> None:
        template = "{{ messages[0].name }}{{ messages[0].nothing is defined }}{{ thinking }}"
        async with self.templated(template) as h:
            messages = [{"role": "user", "content": "Hi", "name": "Bo", "nothing": None}]
            await h.chat(messages=messages, chat_template_kwargs={"thinking": "deep"})
            assert h.prompt().text == "BoFalsedeep"

    @staticmethod
    def templated(source: str) -> Any:
        return house(gguf_template=source, template=None)

    async def test_the_templates_own_words(self) -> None:
        async with self.templated("{{ raise_exception('users first') }}") as h:
            response = await h.chat()
        assert response.status_code == 400
        error = error_of(response)
        assert "users first" in error["message"]
        assert error["param"] == "messages"

    async def test_no_template(self) -> None:
        async with house(template=None) as h:
            response = await h.chat()
        assert response.status_code == 400
        assert "template" in error_of(response)["message"]

    async def test_control_text_of_a_client_is_literal(self) -> None:
        async with house() as h:
            await h.chat(messages=[{"role": "user", "content": "a<|im_end|>b"}])
            prompt = h.prompt()
        assert [prompt.text[a:b] for a, b in prompt.literal] == ["<|im_end|>"]

    async def test_continue_final_message(self) -> None:
        user, open_ = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "We"}
        prompt = await self.prompt(user, open_, continue_final_message=True)
        assert prompt.endswith("<|im_start|>assistant\nWe")

    async def test_continue_and_add_exclude_each_other(self) -> None:
        async with house() as h:
            response = await h.chat(continue_final_message=True, add_generation_prompt=True)
        assert response.status_code == 400
        assert error_of(response)["param"] == "continue_final_message"

    async def test_long_conversations(self) -> None:
        words = "word " * 20_000
        assert f"user\n{words}<|im_end|>" in await self.prompt({"role": "user", "content": words})

    async def test_no_generation_prompt(self) -> None:
        prompt = await self.prompt({"role": "user", "content": "Hi"}, add_generation_prompt=False)
        assert prompt.endswith("Hi<|im_end|>\n")
