"""What the fields of a request ask for, and what is said of those that cannot be had."""

from typing import Any

import pytest

from server.errors import ContextLengthExceeded
from server.ipc import Grammar
from server.sampling import SamplingParams
from tests.api.openai.responses.wire import checked, whole
from tests.api.scripted import error_of, fail, house, speak

PATH = "/v1/responses"
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
USER = {"role": "user", "content": "Hi"}

BAD_VALUES: list[tuple[dict[str, Any], str, str]] = [
    ({"input": None}, "input", "one of input and previous_response_id is required"),
    ({"input": []}, "input", "one of input and previous_response_id is required"),
    ({"input": 5}, "input", "got 5"),
    ({"input": [USER, {"type": "computer_call"}]}, "input.1", '"computer_call" are not served'),
    ({"input": [USER, {"role": "boss"}]}, "input.1.role", 'got "boss"'),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input.0.content.0.type",
        '"input_image"',
    ),
    ({"instructions": ["x"]}, "instructions", "got a list"),
    ({"conversation": "conv_1"}, "conversation", "is not served here"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", "is not served here"),
    ({"max_output_tokens": 0}, "max_output_tokens", "got 0"),
    ({"max_tool_calls": 0}, "max_tool_calls", "got 0"),
    ({"top_logprobs": 21}, "top_logprobs", "got 21"),
    ({"metadata": {str(i): "x" for i in range(17)}}, "metadata", "at most 16"),
    ({"metadata": {"k": "x" * 513}}, "metadata.k", "at most 512"),
    ({"metadata": {"k": 5}}, "metadata.k", "got 5"),
    ({"metadata": {"k" * 65: "x"}}, f"metadata.{'k' * 65}.[key]", "at most 64"),
    ({"truncation": "some"}, "truncation", 'got "some"'),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort", 'got "huge"'),
    (
        {"reasoning": {"effort": "low"}, "chat_template_kwargs": {"reasoning_effort": "high"}},
        "reasoning.effort",
        "another value",
    ),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", 'got "xml"'),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.name", "required"),
    (
        {"text": {"format": {"type": "json_schema", "name": "x"}}},
        "text.format.schema",
        "required",
    ),
    (
        {"text": {"format": {"type": "json_object"}}, "regex": "a+"},
        "regex",
        "only one field may shape the answer, and text.format does",
    ),
    ({"tools": [{"name": "f"}]}, "tools.0.type", "Field required"),
    ({"tools": [{"type": "function"}]}, "tools.0.name", "Field required"),
    ({"tools": [FUNCTION, FUNCTION]}, "tools.1.name", "the name of tools.0 too"),
    ({"tool_choice": "maybe"}, "tool_choice", 'got "maybe"'),
    ({"tool_choice": "required"}, "tool_choice", "offers no tools"),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "g"}},
        "tool_choice.name",
        "'g' is not among the tools: f",
    ),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "auto"}},
        "tool_choice.tools",
        "Field required",
    ),
    ({"stream_options": {}}, "stream_options", "only allowed when stream is true"),
    ({"background": True, "store": False}, "background", "but store is false"),
    ({"background": True}, "background", "keeps no responses"),
    ({"temperature": 400}, "temperature", "less than or equal to 100, got 400"),
    ({"previous_response_id": "resp_0"}, "previous_response_id", "'resp_0' not found"),
]


@pytest.mark.parametrize(("body", "param", "message"), BAD_VALUES)
async def test_bad_values(body: dict[str, Any], param: str, message: str) -> None:
    async with house() as h:
        response = await h.post(PATH, **{"input": "Hi", **body})
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert message in error["message"]
    assert h.worker.requests == []


async def test_unknown_references() -> None:
    async with house() as h:
        response = await h.post(PATH, input=[{"type": "item_reference", "id": "msg_0"}])
        assert response.status_code == 404
        assert error_of(response)["param"] == "input"
        response = await h.post(PATH, input="Hi", previous_response_id="resp_0")
        assert error_of(response)["code"] == "previous_response_not_found"
        response = await h.post(PATH, input="Hi", model="nobody")
        assert response.status_code == 404
        assert error_of(response)["code"] == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long(stream: bool) -> None:
    error = ContextLengthExceeded("prompt of 80 tokens, context of 64", param="input")
    async with house(fail(error)) as h:
        response = await h.post(PATH, input="Hi", stream=stream)
        assert h.worker.requests[0].prompt_param == "input"
    assert response.status_code == 400
    assert error_of(response)["code"] == "context_length_exceeded"


async def test_what_reaches_the_engine() -> None:
    async with house(sampling=SamplingParams(temperature=0.7, top_k=5)) as h:
        await h.post(
            PATH,
            input="Hi",
            max_output_tokens=9,
            top_p=0.5,
            repetition_penalty=1.5,
            stop="END",
            cache_prompt=False,
        )
        (request,) = h.worker.requests
    assert request.sampling == SamplingParams(
        temperature=0.7, top_k=5, top_p=0.5, repeat_penalty=1.5
    )
    assert (request.max_tokens, request.stop, request.cache_prompt) == (9, ("END",), False)
    assert request.logprobs is None


async def test_what_was_asked_for_comes_back() -> None:
    body = {
        "instructions": "Be terse.",
        "max_output_tokens": 9,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "key",
        "safety_identifier": "me",
        "temperature": 0.5,
        "text": {
            "format": {
                "type": "json_schema",
                "name": "x",
                "schema": {"type": "object"},
                "description": "A thing.",
            }
        },
        "tools": [{**FUNCTION, "description": "Does."}, {**FUNCTION, "name": "g", "strict": False}],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "f"}],
        },
        "top_logprobs": 2,
        "top_p": 0.9,
        "truncation": "disabled",
        "user": "me",
        "reasoning": {"effort": "low", "summary": "auto"},
        "service_tier": "auto",
    }
    async with house() as h:
        response = await h.post(PATH, input="Hi", **body)
        assert response.status_code == 200, response.text
        assert "x-corral-ignored" not in response.headers
    told = checked(response.json())
    expected: dict[str, Any] = {
        **body,
        "text": {
            "format": {**body["text"]["format"], "strict": False},  # pyright: ignore
            "verbosity": "medium",
        },
        "tools": [
            {**FUNCTION, "description": "Does.", "strict": True},
            {**FUNCTION, "name": "g", "description": None, "strict": False},
        ],
        "reasoning": {"effort": "low", "summary": None},
        "service_tier": "default",
        "previous_response_id": None,
        "background": False,
        "store": False,
    }
    assert {name: told[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("body", "grammar"),
    [
        ({"text": {"format": {"type": "text"}}}, None),
        (
            {"text": {"format": {"type": "json_object"}}},
            Grammar("json_schema", '{"type": "object"}', "text.format"),
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"enum": [1]}}}},
            Grammar("json_schema", '{"enum": [1]}', "text.format.schema"),
        ),
        ({"regex": "a+"}, Grammar("regex", "a+", "regex")),
    ],
)
async def test_formats(body: dict[str, Any], grammar: Grammar | None) -> None:
    async with house() as h:
        await h.post(PATH, input="Hi", **body)
        assert h.worker.requests[0].grammar == grammar


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"top_logprobs": 3}, None),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 3}, 3),
    ],
)
async def test_logprobs_are_for_those_who_ask(fields: dict[str, Any], wanted: int | None) -> None:
    async with house() as h:
        await h.post(PATH, input="Hi", **fields)
        assert h.worker.requests[0].logprobs == wanted


CODEX: dict[str, Any] = {
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    ],
    "tools": [
        {**FUNCTION, "name": "shell", "strict": False},
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
        {"type": "web_search", "external_web_access": False},
        {"type": "namespace", "name": "mcp", "tools": [FUNCTION]},
        {"type": "local_shell"},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199",
}


async def test_tools_that_are_not_served_are_ignored_and_told() -> None:
    async with house() as h:
        response = await h.post(PATH, **CODEX)
    assert response.status_code == 200, response.text
    assert response.headers["x-corral-ignored"] == (
        "tools.1 (custom), tools.2 (web_search), tools.3 (namespace), tools.4 (local_shell)"
    )
    told = whole(response.content)
    assert [tool["name"] for tool in told["tools"]] == ["shell"]


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"store": True}, "store"),
        ({"n": 2, "foo": 1}, "n, foo"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"include": ["file_search_call.results"]}, "include.0 (file_search_call.results)"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "text", "foo": 1}}}, "text.format.foo"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice (web_search)"),
        (
            {
                "tools": [FUNCTION],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "f"}, {"type": "mcp"}],
                },
            },
            "tool_choice.tools.1 (mcp)",
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "mcp"}],
                }
            },
            "tool_choice.tools.0 (mcp)",
        ),
    ],
)
async def test_what_changes_nothing_is_told(fields: dict[str, Any], ignored: str) -> None:
    async with house() as h:
        response = await h.post(PATH, input="Hi", **fields)
        assert response.status_code == 200, response.text
        assert response.headers["x-corral-ignored"] == ignored
        checked(response.json())
    async with house(unknown_fields="strict") as h:
        response = await h.post(PATH, input="Hi", **fields)
        assert response.status_code == 400
        assert error_of(response)["code"] == "unsupported_parameter"


TEMPLATE = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{{ reasoning_effort }},{{ enable_thinking }},{{ x }}"
    '{{ messages[-1].content }}{# <tool_call>{"name": .., "arguments": ..}</tool_call> #}'
)


async def prompt(**body: Any) -> str:
    async with house(gguf_template=TEMPLATE, template=None) as h:
        response = await h.post(PATH, input="Hi", **body)
        assert response.status_code == 200, response.text
        return h.prompt().text


async def test_what_the_template_is_told() -> None:
    told = await prompt(reasoning={"effort": "low"}, chat_template_kwargs={"x": "y"})
    assert told.startswith("low,,y")
    assert (await prompt(reasoning={"effort": "none"})).startswith("none,False,")


async def test_functions_reach_the_template() -> None:
    tools = [FUNCTION, {"type": "mcp"}, {**FUNCTION, "name": "g"}]
    assert "[f][g]" in await prompt(tools=tools)
    assert "[" not in await prompt(tools=tools, tool_choice="none")


async def test_a_call() -> None:
    words = ["<tool_call>\n", '{"name": "f", ', '"arguments": {"x": 1}}', "\n</tool_call>"]
    async with house(speak(*words), gguf_template=TEMPLATE, template=None) as h:
        response = await h.post(PATH, input="Hi", tools=[FUNCTION], stream=True)
        told = whole(response.content)
        other = (await h.post(PATH, input="Hi", tools=[FUNCTION])).json()
    (call,) = told["output"]
    assert (call["type"], call["name"]) == ("function_call", "f")
    assert call["arguments"].replace(" ", "") == '{"x":1}'
    assert call["call_id"].startswith("call_")
    assert other["output"][0]["arguments"] == call["arguments"]
