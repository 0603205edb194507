"""Tools on the wire: which functions a request offers, and whether they must be called."""

import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from server.api.openai.response_format import NAME, Schema
from server.api.wire import Given, Wire
from server.chat.turn import Tool, ToolChoice
from server.errors import InvalidRequest


def _check_type(value: object) -> object:
    if value != "function":
        raise PydanticCustomError(
            "unsupported",
            "only tools of type function are served, got {kind}",
            {"kind": json.dumps(value)[:60]},
        )
    return value


FunctionType = Annotated[Literal["function"], BeforeValidator(_check_type)]


class Function(Given):
    """What may be called."""

    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: Schema | None = Field(default=None, description="a JSON schema; null: it has none")
    strict: bool | None = Field(
        default=None, description="arguments match the schema even where a call is the model's wish"
    )

    def tool(self, param: str) -> Tool:
        """`param` is the path of this function in the request."""
        return Tool(self.name, self.description, self.parameters, bool(self.strict), param)


class FunctionTool(Given):
    """One of `tools`."""

    type: FunctionType
    function: Function


class FunctionName(Given):
    """A function that the request offers."""

    name: str


class NamedTool(Given):
    """`tool_choice`: this function must be called."""

    type: FunctionType
    function: FunctionName


class AllowedTools(Given):
    """The functions that may be called, and whether one must be."""

    mode: Literal["auto", "required"]
    tools: tuple[NamedTool, ...] = Field(min_length=1)


class AllowedToolsChoice(Given):
    """`tool_choice`: only these functions."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolMode = Literal["none", "auto", "required"]


def _choice_kind(value: object) -> Literal["<mode>", "<named>", "<allowed>"]:
    match value:
        case {"type": "allowed_tools"} | AllowedToolsChoice():
            return "<allowed>"
        case {} | NamedTool():
            return "<named>"
        case _:
            return "<mode>"


ToolChoiceField = Annotated[
    Annotated[ToolMode, Tag("<mode>")]
    | Annotated[NamedTool, Tag("<named>")]
    | Annotated[AllowedToolsChoice, Tag("<allowed>")],
    Discriminator(_choice_kind),
]

FunctionMode = Literal["none", "auto"]


def _call_kind(value: object) -> Literal["<mode>", "<named>"]:
    return "<named>" if isinstance(value, dict | FunctionName) else "<mode>"


FunctionCallField = Annotated[
    Annotated[FunctionMode, Tag("<mode>")] | Annotated[FunctionName, Tag("<named>")],
    Discriminator(_call_kind),
]


class Tools(Wire):
    """The fields of a chat request that offer functions, in today's form or the one before."""

    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool = True
    functions: tuple[Function, ...] = Field(default=(), description="deprecated: use tools")
    function_call: FunctionCallField | None = Field(
        default=None, description="deprecated: use tool_choice"
    )

    @property
    def legacy(self) -> bool:
        """Whether calls are answered in the form of `functions`."""
        return bool(self.functions)

    @property
    def offered(self) -> tuple[Tool, ...]:
        """Raises InvalidRequest where two have one name, or where both forms are used."""
        if self.functions and self.tools:
            raise InvalidRequest(
                "functions: the deprecated form of tools, which are given too", param="functions"
            )
        tools = [t.function.tool(f"tools.{i}.function") for i, t in enumerate(self.tools)]
        functions = [f.tool(f"functions.{i}") for i, f in enumerate(self.functions)]
        return distinct(tools + functions)

    @property
    def choice(self) -> ToolChoice:
        """Raises InvalidRequest where a function is named that is not offered."""
        offered = self.offered
        if self.function_call is not None:
            return _function_choice(self.function_call, offered)
        match self.tool_choice:
            case None:
                return ToolChoice()
            case "none" | "auto" | "required" as mode:
                if mode == "required":
                    check_offered((), offered, "tool_choice")
                return ToolChoice(mode)
            case NamedTool(function=function):
                check_offered((function.name,), offered, "tool_choice.function.name")
                return ToolChoice("required", (function.name,))
            case AllowedToolsChoice(allowed_tools=allowed):
                names = tuple(tool.function.name for tool in allowed.tools)
                check_offered(names, offered, "tool_choice.allowed_tools.tools")
                return ToolChoice(allowed.mode, names)


def _function_choice(call: FunctionMode | FunctionName, offered: Sequence[Tool]) -> ToolChoice:
    if isinstance(call, FunctionName):
        check_offered((call.name,), offered, "function_call.name")
        return ToolChoice("required", (call.name,))
    return ToolChoice(call)


def distinct(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """The tools. Raises InvalidRequest where two have one name."""
    known: dict[str, Tool] = {}
    for tool in tools:
        first = known.setdefault(tool.name, tool)
        if first is not tool:
            path = f"{tool.param}.name"
            raise InvalidRequest(f"{path}: {tool.name!r} is the name of {first.param} too", path)
    return tuple(tools)


def check_offered(names: Sequence[str], offered: Sequence[Tool], param: str) -> None:
    """Raises InvalidRequest where nothing is offered, or not all of `names`."""
    known = [tool.name for tool in offered]
    if not known:
        raise InvalidRequest(f"{param}: the request offers no tools", param=param)
    for name in names:
        if name not in known:
            raise InvalidRequest(
                f"{param}: {name!r} is not among the tools: {', '.join(known)}", param=param
            )
