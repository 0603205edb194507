"""Tools in the form of the Responses API. Kinds that are not served are ignored, and told so."""

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import BaseModel, Discriminator, Field, Tag

from server.api.body import Body
from server.api.openai.response_format import NAME, Schema
from server.chat.turn import Tool, ToolChoice
from server.errors import InvalidRequest


class Function(Body):
    """A function that the model may call."""

    type: Literal["function"]
    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: Schema | None = Field(default=None, description="a JSON schema; null: any object")
    strict: bool = Field(
        default=True, description="arguments match the schema even where a call is the model's wish"
    )


class Unserved(Body):
    """A tool of a kind that is not served: ignored."""

    type: str


def _type_of(value: object) -> object:
    """The `type` of an object that may have been read already."""
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value).get("type")
    return getattr(value, "type", None)


def _tool_kind(value: object) -> Literal["<function>", "<unserved>"]:
    return "<function>" if _type_of(value) == "function" else "<unserved>"


AnyTool = Annotated[
    Annotated[Function, Tag("<function>")] | Annotated[Unserved, Tag("<unserved>")],
    Discriminator(_tool_kind),
]


class NamedTool(Body):
    """`tool_choice`: this function must be called. Other kinds of tools are ignored."""

    type: str
    name: str = ""


class AllowedTools(Body):
    """`tool_choice`: only these functions, and whether one must be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: tuple[NamedTool, ...] = Field(min_length=1)


def _choice_kind(value: object) -> Literal["<mode>", "<named>", "<allowed>"]:
    if isinstance(value, str):
        return "<mode>"
    return "<allowed>" if _type_of(value) == "allowed_tools" else "<named>"


ToolChoiceField = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[NamedTool, Tag("<named>")]
    | Annotated[AllowedTools, Tag("<allowed>")],
    Discriminator(_choice_kind),
]


class Tools(BaseModel):
    """The fields of a request that offer functions."""

    tools: tuple[AnyTool, ...] = ()
    tool_choice: ToolChoiceField = "auto"
    parallel_tool_calls: bool = True

    @property
    def functions(self) -> dict[str, tuple[str, Function]]:
        """What may be called, by its name, with its path. Raises InvalidRequest."""
        found: dict[str, tuple[str, Function]] = {}
        for position, tool in enumerate(self.tools):
            if isinstance(tool, Unserved):
                continue
            path = f"tools.{position}"
            if tool.name in found:
                raise InvalidRequest(
                    f"{path}.name: {tool.name!r} is the name of {found[tool.name][0]} too",
                    param=f"{path}.name",
                )
            found[tool.name] = (path, tool)
        return found

    @property
    def offered(self) -> tuple[Tool, ...]:
        """Raises InvalidRequest where two have one name."""
        return tuple(
            Tool(tool.name, tool.description, tool.parameters, tool.strict, path)
            for path, tool in self.functions.values()
        )

    @property
    def choice(self) -> ToolChoice:
        """Raises InvalidRequest where a function is named that is not offered."""
        choice = self.tool_choice
        match choice:
            case "none" | "auto":
                return ToolChoice(choice)
            case "required":
                self._check_offered((), "tool_choice")
                return ToolChoice("required")
            case NamedTool(type="function"):
                self._check_offered((choice.name,), "tool_choice.name")
                return ToolChoice("required", (choice.name,))
            case NamedTool():
                return ToolChoice()
            case AllowedTools():
                names = tuple(tool.name for tool in choice.tools if tool.type == "function")
                if not names:
                    return ToolChoice("none")
                self._check_offered(names, "tool_choice.tools")
                return ToolChoice(choice.mode, names)

    def _check_offered(self, names: tuple[str, ...], param: str) -> None:
        offered = self.functions
        if not offered:
            raise InvalidRequest(f"{param}: the request offers no functions", param=param)
        for name in names:
            if name not in offered:
                raise InvalidRequest(
                    f"{param}: {name!r} is not among the tools: {', '.join(offered)}", param=param
                )

    @property
    def unserved_tools(self) -> dict[str, object]:
        """What is ignored, by its path and its kind."""
        ignored: dict[str, object] = {}
        for position, tool in enumerate(self.tools):
            if isinstance(tool, Unserved):
                ignored[f"tools.{position} ({tool.type})"] = tool.type
        match self.tool_choice:
            case NamedTool(type=kind) if kind != "function":
                ignored[f"tool_choice ({kind})"] = kind
            case AllowedTools(tools=tools):
                ignored |= {
                    f"tool_choice.tools.{i} ({tool.type})": tool.type
                    for i, tool in enumerate(tools)
                    if tool.type != "function"
                }
            case _:
                pass
        return ignored
