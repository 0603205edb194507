"""Request fields beyond an endpoint's own: sampling parameters, and what is not served.

Sampling parameters are whatever `SamplingParams` has, so a new one needs no change here.
"""

import logging
from collections.abc import Mapping
from typing import Literal, NamedTuple, assert_never

from pydantic import ValidationError

from server.api.errors import shown
from server.errors import InvalidRequest, UnsupportedParameter
from server.sampling import ALIASES, SamplingParams

log = logging.getLogger(__name__)

ACCEPTED = frozenset(
    {
        "keep_alive",
        "metadata",
        "ttl",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "prediction",
    }
)
"""Labels and hints that cannot change an answer."""

NO_EFFECT: Mapping[str, tuple[object, ...]] = {
    "audio": ({},),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logprobs": (False,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
"""Values which ask for what happens anyway, of fields that an endpoint does not serve."""

HEADER_CHARS = 1024


class Extras(NamedTuple):
    """A body's extra fields, sorted out."""

    sampling: Mapping[str, object]
    """By the client's names."""
    unserved: tuple[str, ...]


def sort_out(extras: Mapping[str, object]) -> Extras:
    """Tell sampling parameters from fields that are not served; nulls are as good as absent."""
    given = {name: value for name, value in extras.items() if value is not None}
    sampling = {name: value for name, value in given.items() if _canonical(name) is not None}
    unserved = tuple(
        name
        for name, value in given.items()
        if name not in sampling and name not in ACCEPTED and not _has_no_effect(name, value)
    )
    return Extras(sampling, unserved)


def _canonical(name: str) -> str | None:
    name = ALIASES.get(name, name)
    return name if name in SamplingParams.model_fields else None


def _has_no_effect(name: str, value: object) -> bool:
    # The types too: `logprobs: 0` asks for something, `logprobs: false` does not.
    return any(type(value) is type(idle) and value == idle for idle in NO_EFFECT.get(name, ()))


def merge_sampling(defaults: SamplingParams, given: Mapping[str, object]) -> SamplingParams:
    """`given`, by the client's names, over `defaults`. Raises InvalidRequest."""
    if not given:
        return defaults
    values: dict[str, object] = defaults.model_dump()
    named: dict[str, str] = {}
    for name, value in given.items():
        canonical = _canonical(name) or name
        if canonical in named and given[named[canonical]] != value:
            raise InvalidRequest(
                f"{name}: another name of {named[canonical]}, which has another value", param=name
            )
        named[canonical] = name
        values[canonical] = value
    try:
        return SamplingParams.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        field, *rest = map(str, fault["loc"])
        path = ".".join([named.get(field, field), *rest])
        message = fault["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"{path}: {message}{shown(fault['input'])}", param=path) from error


def report_unserved(
    unserved: tuple[str, ...], policy: Literal["warn", "strict", "lax"], request_id: str
) -> dict[str, str]:
    """Response headers that name the fields. Raises UnsupportedParameter if we are strict."""
    if not unserved:
        return {}
    match policy:
        case "lax":
            return {}
        case "strict":
            raise UnsupportedParameter(
                f"{unserved[0]}: this field is not served", param=unserved[0]
            )
        case "warn":
            names = _printable(", ".join(unserved))
            log.warning("%s: fields that are not served were ignored: %s", request_id, names)
            return {"x-corral-ignored": names}
        case _:
            assert_never(policy)


def _printable(text: str) -> str:
    """As a header may have it: clients choose these names, line ends and all."""
    text = text.encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else "?" for c in text)[:HEADER_CHARS]
