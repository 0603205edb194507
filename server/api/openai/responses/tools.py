"""Tools in the form of the Responses API. Kinds that are not served are ignored, and told so."""

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import Discriminator, Field, Tag

from server.api.body import Body
from server.api.openai.response_format import NAME, Schema
from server.api.openai.tools import check_offered, distinct
from server.api.wire import Wire
from server.chat.turn import Tool, ToolChoice


class Function(Body):
    """A function that the model may call."""

    type: Literal["function"]
    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: Schema | None = Field(default=None, description="a JSON schema; null: it has none")
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


class Tools(Wire):
    """The fields of a request that offer functions."""

    tools: tuple[AnyTool, ...] = ()
    tool_choice: ToolChoiceField = "auto"
    parallel_tool_calls: bool = True

    @property
    def functions(self) -> dict[str, Function]:
        """What may be called, by its path."""
        paths = ((f"tools.{i}", tool) for i, tool in enumerate(self.tools))
        return {path: tool for path, tool in paths if isinstance(tool, Function)}

    @property
    def offered(self) -> tuple[Tool, ...]:
        """Raises InvalidRequest where two have one name."""
        return distinct(
            [
                Tool(tool.name, tool.description, tool.parameters, tool.strict, path)
                for path, tool in self.functions.items()
            ]
        )

    @property
    def choice(self) -> ToolChoice:
        """Raises InvalidRequest where a function is named that is not offered."""
        choice = self.tool_choice
        match choice:
            case "none" | "auto":
                return ToolChoice(choice)
            case "required":
                check_offered((), self.offered, "tool_choice")
                return ToolChoice("required")
            case NamedTool(type="function"):
                check_offered((choice.name,), self.offered, "tool_choice.name")
                return ToolChoice("required", (choice.name,))
            case NamedTool():
                return ToolChoice()
            case AllowedTools():
                names = tuple(tool.name for tool in choice.tools if tool.type == "function")
                if not names:
                    return ToolChoice("none")
                check_offered(names, self.offered, "tool_choice.tools")
                return ToolChoice(choice.mode, names)

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
