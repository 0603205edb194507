"""`documents` of requests: what they may be, and where they arrive."""

from typing import Any

import pytest

from tests.api.scripted import error_of, house, speak

HI = [{"role": "user", "content": "Hi"}]
PATHS = ("/v1/chat/completions", "/v1/apply-template", "/v1/responses")
TAKES = "{% for d in documents or [] %}{{ d | tojson }}{% endfor %}{{ messages[0].content }}"
LINE = {"city": "Paris", "text": "It rains."}
BLOCKS = (
    "BEGININPUT\nBEGINCONTEXT\ncity: Paris\nENDCONTEXT\nIt rains.\nENDINPUT\n"
    "BEGININSTRUCTION\nHi\nENDINSTRUCTION\n"
)


def body(path: str, **fields: object) -> dict[str, Any]:
    return {"input" if "responses" in path else "messages": HI, **fields}


@pytest.mark.parametrize("path", PATHS)
async def test_in_bagels_blocks(path: str) -> None:
    async with house(template="bagel-chatml") as h:
        response = await h.post(path, **body(path, documents=[LINE]))
        assert response.status_code == 200
        assert "x-corral-ignored" not in response.headers
        shown = response.json()["prompt"] if "apply" in path else h.prompt().text
    assert shown == f"<s>user\n{BLOCKS}<|im_end|>\n<s>assistant\n"


@pytest.mark.parametrize(
    ("document", "given"),
    [
        ({"text": "a", "title": "b", "n": 1.5}, '{"title": "b", "n": 1.5, "text": "a"}'),
        ({"title": "b", "contents": "a"}, '{"title": "b", "text": "a"}'),
        ({"doc": "a", "title": None}, '{"text": "a"}'),
    ],
)
async def test_for_a_template_that_takes_them(document: object, given: str) -> None:
    async with house(template=None, gguf_template=TAKES) as h:
        await h.chat(documents=[document, {"text": "z"}])
        assert h.prompt().text == given + '{"text": "z"}Hi'


@pytest.mark.parametrize("path", PATHS)
async def test_a_template_without_a_place_for_them(path: str) -> None:
    async with house() as h:
        response = await h.post(path, **body(path, documents=[LINE]))
        assert response.status_code == 400
        error = error_of(response)
        assert (error["param"], error["code"]) == ("documents", "unsupported_parameter")
        assert (await h.post(path, **body(path, documents=[]))).status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("documents", "param"),
    [
        ("text", "documents"),
        (["text"], "documents.0"),
        ([LINE, {}], "documents.1.text"),
        ([{"title": "x"}], "documents.0.text"),
        ([{"text": ""}], "documents.0.text"),
        ([{"text": ["x"]}], "documents.0.text"),
        ([{"contents": 3}], "documents.0.contents"),
        ([{"text": "x", "meta": {"a": 1}}], "documents.0.meta"),
        ([{"text": "x\nENDINPUT"}], "documents.0.text"),
    ],
)
async def test_what_they_may_not_be(path: str, documents: object, param: str) -> None:
    async with house(template="bagel-alpaca") as h:
        response = await h.post(path, **body(path, documents=documents))
    assert response.status_code == 400
    assert error_of(response)["param"] == param


async def test_they_are_no_variable_of_the_template() -> None:
    async with house(template="bagel-alpaca") as h:
        response = await h.chat(chat_template_kwargs={"documents": [LINE]})
    assert error_of(response)["param"] == "chat_template_kwargs.documents"


async def test_a_call_in_bagels_way() -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    function = {"name": "get_weather", "description": "Of a city", "parameters": parameters}
    tools = [{"type": "function", "function": function}]
    words = ('{"function": "get_', 'weather", "params":', ' {"city": "Rome"}}')
    async with house(speak(*words), template="bagel-alpaca") as h:
        answer = (await h.chat(tools=tools)).json()["choices"][0]
        assert answer["finish_reason"] == "tool_calls"
        (call,) = answer["message"]["tool_calls"]
        assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Rome"}'}
        assert "\n\nInput: Hi\n\nAvailable functions:\nget_weather:\n" in h.prompt().text
