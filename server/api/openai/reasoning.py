"""How hard a model is to think, and what its template is told of it."""

from collections.abc import Mapping
from typing import Literal

from server.errors import InvalidRequest

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def template_variables(
    given: Mapping[str, object], effort: Effort | None, param: str
) -> Mapping[str, object]:
    """The client's `chat_template_kwargs` with the effort, which is the request's field `param`.

    Raises InvalidRequest where they differ.
    """
    if effort is None:
        return given
    if given.get("reasoning_effort", effort) != effort:
        raise InvalidRequest(f"{param}: chat_template_kwargs has another value", param=param)
    thinking = {"enable_thinking": False} if effort == "none" else {}
    return {**thinking, **given, "reasoning_effort": effort}
