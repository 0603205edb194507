"""Items as clients give them, and as they are listed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter, ValidationError

from server.api.openai.responses.items import (
    Item,
    Message,
    Reasoning,
    Reference,
    kept_items,
    seal,
    unseal,
)
from tests.contract.published import published

ITEM: TypeAdapter[Any] = TypeAdapter(Item)
LISTED: TypeAdapter[Any] = TypeAdapter(ResponseItem)

GIVEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"role": "user", "content": "Hi"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    ),
    (
        {"role": "assistant", "content": "Hi", "phase": "final_answer"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
        },
    ),
    (
        {
            "type": "message",
            "id": "msg_1",
            "status": "incomplete",
            "role": "assistant",
            "content": [
                {"type": "input_text", "text": "a"},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {
            "id": "msg_1",
            "type": "message",
            "status": "incomplete",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "no"},
            ],
        },
    ),
    (
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{", "id": None},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"},
    ),
    (
        {"type": "function_call_output", "call_id": "c", "output": "19"},
        {"type": "function_call_output", "call_id": "c", "output": "19"},
    ),
    (
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [{"type": "input_text", "text": "19"}],
        },
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [{"type": "input_text", "text": "19"}],
        },
    ),
    (
        {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** Begin"},
        {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** Begin"},
    ),
    (
        {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
    ),
    (
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": []},
    ),
    (
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "short"}],
            "content": [{"type": "reasoning_text", "text": "long"}],
            "encrypted_content": "secret",
        },
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "short"}],
            "content": [{"type": "reasoning_text", "text": "long"}],
            "encrypted_content": "secret",
        },
    ),
]


@pytest.mark.parametrize(("given", "listed"), GIVEN)
def test_as_listed(given: dict[str, Any], listed: dict[str, Any]) -> None:
    resource = ITEM.validate_python(given).resource()
    assert resource["id"]
    assert resource == {"id": resource["id"], "status": "completed", **listed}
    LISTED.validate_python(resource, strict=True)
    published().check("ItemResource", resource)
    # What is listed may be given again, and means the same.
    (again,) = kept_items([resource])
    assert again.resource() == resource


def test_ids_are_made_up_once_for_each() -> None:
    one, other = (Message(role="user", content="Hi").resource()["id"] for _ in range(2))
    assert one != other


@pytest.mark.parametrize("given", [{"id": "msg_1"}, {"type": "item_reference", "id": "msg_1"}])
def test_references(given: dict[str, Any]) -> None:
    assert ITEM.validate_python(given) == Reference(type="item_reference", id="msg_1")


FAULTS: list[tuple[Any, str]] = [
    ({"role": "tool", "content": "x"}, "Input should be 'user'"),
    ({"role": "user"}, "Field required"),
    ({"type": "web_search_call", "id": "ws_1"}, '"web_search_call" are not served'),
    ({"type": 5}, "items of type 5 are not served"),
    ({"type": "function_call_output", "output": "x"}, "Field required"),
    ({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}, '"input_image"'),
    ({"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}, '"input_file"'),
    ({"role": "user", "content": [{"type": "input_text"}]}, "has a string as its text"),
    ({"role": "user", "content": [{"type": "refusal", "text": "x"}]}, "string as its refusal"),
    ({"role": "user", "content": ["x"]}, "valid dictionary"),
    (5, "valid dictionary"),
    (None, "valid dictionary"),
]


@pytest.mark.parametrize(("given", "message"), FAULTS)
def test_what_is_no_item(given: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ITEM.validate_python(given)
    assert message in caught.value.errors()[0]["msg"]


@given(st.text(st.characters(codec="utf-8")))
def test_sealed_reasoning_comes_back(text: str) -> None:
    item = Reasoning(type="reasoning", encrypted_content=seal(text))
    assert item.text == text


@pytest.mark.parametrize("sealed", ["", "gAAAAB", "corral.", "corral.!", "corral._w=="])
def test_what_others_sealed_is_nothing(sealed: str) -> None:
    assert unseal(sealed) == ""
