"""ChatFormat: how one model wants its messages written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from server.chat.template import Template, compile_template, render
from server.errors import InvalidRequest
from server.ipc import ModelInfo, Text

PACKAGE = Path(__file__).parents[1]

TEMPLATE_FOLDERS = (PACKAGE / "templates", PACKAGE.parent / "templates")
"""Where named templates lie: in a wheel, in a checkout."""

RESERVED = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"}
)
"""Template variables that we set, so `chat_template_kwargs` may not."""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A model's chat template and the tokens that it may name."""

    template: Template
    bos: str
    eos: str
    special: tuple[str, ...]

    def prompt(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> Text:
        """Messages to prompt; `variables` are the client's `chat_template_kwargs`.

        Raises InvalidRequest.
        """
        variables = variables or {}
        for name in variables.keys() & RESERVED:
            raise InvalidRequest(
                f"chat_template_kwargs.{name}: is set by the server",
                param=f"chat_template_kwargs.{name}",
            )
        if continue_final_message:
            _check_continued(messages, add_generation_prompt)
        return render(
            self.template,
            [self._spoken(message) for message in messages],
            variables,
            self.special,
            continue_final_message,
            # transformers passes None for what is not given, and templates test for it.
            own={
                "tools": None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
                "bos_token": self.bos,
                "eos_token": self.eos,
            },
        )

    def _spoken(self, message: Mapping[str, object]) -> Mapping[str, object]:
        """The message in the roles that the template knows."""
        if message["role"] == "developer" and "developer" not in self.template.source:
            return {**message, "role": "system"}
        return message


@lru_cache(maxsize=64)
def chat_format(template: str | None, info: ModelInfo) -> ChatFormat:
    """The format of a model: by the configured template, else by the GGUF's own.

    Raises InvalidRequest if there is neither, or if it does not compile.
    """
    source = info.template if template is None else _read(template)
    if not source:
        raise InvalidRequest(
            "the model's GGUF carries no chat template: set `template` of this model in the "
            "configuration to a name of templates/ or a .jinja file, or use /v1/completions",
            param="messages",
        )
    return ChatFormat(compile_template(source), info.bos, info.eos, info.special)


def _read(template: str) -> str:
    """The source of a configured template: a path to a .jinja file or a name of templates/."""
    if template.endswith(".jinja"):
        places = (Path(template).expanduser(),)
    else:
        places = tuple(folder / f"{template}.jinja" for folder in TEMPLATE_FOLDERS)
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    looked = " and ".join(str(place) for place in places)
    raise InvalidRequest(
        f"the configured chat template {template!r} does not exist: looked at {looked}",
        param="messages",
    )


def _check_continued(messages: Sequence[Mapping[str, object]], add_generation_prompt: bool) -> None:
    last = messages[-1]
    if add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other",
            param="continue_final_message",
        )
    if last["role"] != "assistant" or not isinstance(last.get("content"), str):
        raise InvalidRequest(
            "continue_final_message: the last message must be an assistant's, with text",
            param="continue_final_message",
        )
