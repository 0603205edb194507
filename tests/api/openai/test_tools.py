"""Which functions are offered, which must be called, and what is wrong with a request's tools."""

from typing import Any

import pytest
from pydantic import ValidationError

from server.api.errors import invalid
from server.api.openai.tools import Tools
from server.chat.turn import Tool, ToolChoice
from server.errors import InvalidRequest, UnsupportedParameter

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def tool(name: str, **fields: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def read(**body: object) -> Tools:
    """As a route reads it. Raises what it would answer."""
    try:
        tools = Tools.model_validate(body)
    except ValidationError as error:
        raise invalid(error) from error
    assert tools.offered is not None and tools.choice is not None
    return tools


def test_nothing_is_offered() -> None:
    tools = read()
    assert (tools.offered, tools.choice, tools.parallel_tool_calls) == ((), ToolChoice(), True)
    assert not tools.legacy


def test_what_is_offered() -> None:
    given = [tool("a", description="A.", parameters=SCHEMA, strict=True), tool("b-_9")]
    assert read(tools=given).offered == (
        Tool("a", "A.", SCHEMA, True, "tools.0.function"),
        Tool("b-_9", None, None, False, "tools.1.function"),
    )


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", ToolChoice("none")),
        ("auto", ToolChoice("auto")),
        ("required", ToolChoice("required")),
        (named("b"), ToolChoice("required", ("b",))),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named("a")]}},
            ToolChoice("auto", ("a",)),
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [named("b"), named("a")]},
            },
            ToolChoice("required", ("b", "a")),
        ),
    ],
)
def test_choices(choice: object, expected: ToolChoice) -> None:
    assert read(tools=[tool("a"), tool("b")], tool_choice=choice).choice == expected


@pytest.mark.parametrize("choice", ["none", "auto"])
def test_a_choice_of_nothing(choice: str) -> None:
    assert read(tool_choice=choice).choice == ToolChoice("none" if choice == "none" else "auto")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("none", ToolChoice("none")),
        ("auto", ToolChoice("auto")),
        ({"name": "f"}, ToolChoice("required", ("f",))),
        (None, ToolChoice("auto")),
    ],
)
def test_the_form_before(call: object, expected: ToolChoice) -> None:
    functions = [{"name": "f", "parameters": SCHEMA}, {"name": "g"}]
    tools = read(functions=functions, **({} if call is None else {"function_call": call}))
    assert tools.offered == (
        Tool("f", None, SCHEMA, False, "functions.0"),
        Tool("g", None, None, False, "functions.1"),
    )
    assert tools.choice == expected
    assert tools.legacy


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": "f"}, "tools", 'got "f"'),
    ({"tools": [{}]}, "tools.0.type", "Field required"),
    ({"tools": [{"type": "function"}]}, "tools.0.function", "Field required"),
    ({"tools": [tool("a"), tool("")]}, "tools.1.function.name", "should match pattern"),
    ({"tools": [tool("a b")]}, "tools.0.function.name", 'got "a b"'),
    ({"tools": [tool("x" * 65)]}, "tools.0.function.name", "should match pattern"),
    ({"tools": [tool("a", parameters=[])]}, "tools.0.function.parameters", "got a list"),
    ({"tools": [tool("a", strict="very")]}, "tools.0.function.strict", 'got "very"'),
    (
        {"tools": [tool("a"), tool("b"), tool("a")]},
        "tools.2.function.name",
        "'a' is the name of tools.0.function too",
    ),
    ({"tool_choice": "required"}, "tool_choice", "offers no tools"),
    ({"tool_choice": "maybe"}, "tool_choice", 'got "maybe"'),
    ({"tools": [tool("a")], "tool_choice": 5}, "tool_choice", "got 5"),
    (
        {"tools": [tool("a"), tool("b")], "tool_choice": named("c")},
        "tool_choice.function.name",
        "'c' is not among the tools: a, b",
    ),
    ({"tools": [tool("a")], "tool_choice": {}}, "tool_choice.type", "Field required"),
    (
        {
            "tools": [tool("a")],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [named("b")]},
            },
        },
        "tool_choice.allowed_tools.tools",
        "'b' is not among the tools: a",
    ),
    (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
        "tool_choice.allowed_tools.tools",
        "at least 1 item",
    ),
    ({"tools": [tool("a")], "functions": [{"name": "f"}]}, "functions", "deprecated form"),
    ({"functions": [{"name": "f"}, {"name": "f"}]}, "functions.1.name", "functions.0 too"),
    ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call.name", "'g'"),
    ({"function_call": {"name": "g"}}, "function_call.name", "offers no tools"),
    ({"functions": [{"name": "f"}], "function_call": "must"}, "function_call", 'got "must"'),
    ({"tools": [tool("a")], "parallel_tool_calls": "x"}, "parallel_tool_calls", 'got "x"'),
]


@pytest.mark.parametrize(("body", "param", "message"), BAD)
def test_what_is_wrong(body: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**body)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
    assert message in caught.value.message


@pytest.mark.parametrize("kind", ["custom", "web_search", 5])
def test_tools_that_are_no_functions(kind: object) -> None:
    with pytest.raises(UnsupportedParameter, match="only tools of type function") as caught:
        read(tools=[tool("a"), {"type": kind, "custom": {"name": "x"}}])
    assert caught.value.param == "tools.1.type"
    with pytest.raises(UnsupportedParameter) as caught:
        read(tools=[tool("a")], tool_choice={"type": kind, "custom": {"name": "x"}})
    assert caught.value.param == "tool_choice.type"
