"""Contents: strings or parts, and parts of the wrong type."""

from typing import Annotated

import pytest
from pydantic import BaseModel, ValidationError

from server.api.openai.parts import Content, one_of


class Part(BaseModel):
    type: Annotated[str, one_of(("text", "refusal"))]


class Message(BaseModel):
    content: Content[Part]


def test_a_string_or_parts() -> None:
    assert Message.model_validate({"content": "Hi"}).content == "Hi"
    parts = [{"type": "refusal"}, {"type": "text"}]
    content = (Part(type="refusal"), Part(type="text"))
    assert Message.model_validate({"content": parts}).content == content
    assert Message.model_validate({"content": content}).content == content
    assert Message.model_validate({"content": []}).content == ()


@pytest.mark.parametrize("kind", ["image_url", None, 7, ["text"], {}, "x" * 100])
def test_other_parts_are_not_served(kind: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Message.model_validate({"content": [{"type": "text"}, {"type": kind}]})
    (error,) = caught.value.errors()
    assert error["loc"] == ("content", "<parts>", 1, "type")
    assert error["type"] == "unsupported"
    assert error["msg"].startswith("only text and refusal parts are served, got ")
    assert len(error["msg"]) <= 105


@pytest.mark.parametrize("content", [None, 7, {"type": "text"}])
def test_other_contents_are_no_strings(content: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Message.model_validate({"content": content})
    (error,) = caught.value.errors()
    assert (error["loc"], error["type"]) == (("content", "<text>"), "string_type")
