"""Which functions a request offers, and which of them must be called."""

from typing import Any

import pytest

from server.api.openai.responses.request import ResponsesRequest
from server.chat.turn import Tool, ToolChoice

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
TOOLS: list[dict[str, Any]] = [
    {"type": "web_search"},
    {"type": "function", "name": "f", "description": "Does.", "parameters": SCHEMA},
    {"type": "function", "name": "g", "parameters": None, "strict": False},
    {"type": "function", "name": "h", "strict": None},
]


def request(**fields: Any) -> ResponsesRequest:
    return ResponsesRequest.model_validate({"model": "m", "input": "Hi", **fields})


def test_functions_are_strict_unless_they_say_otherwise() -> None:
    assert request(tools=TOOLS).offered == (
        Tool("f", "Does.", SCHEMA, True, "tools.1"),
        Tool("g", None, None, False, "tools.2"),
        Tool("h", None, None, True, "tools.3"),
    )


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "g"}, ToolChoice("required", ("g",))),
        ({"type": "file_search"}, ToolChoice()),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [
                    {"type": "function", "name": "f"},
                    {"type": "mcp", "server_label": "x"},
                    {"type": "function", "name": "g"},
                ],
            },
            ToolChoice("required", ("f", "g")),
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "image_generation"}]},
            ToolChoice("none"),
        ),
    ],
)
def test_choices(choice: object, meant: ToolChoice) -> None:
    assert request(tools=TOOLS, tool_choice=choice).choice == meant
