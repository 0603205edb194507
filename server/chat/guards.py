"""What a template's filters, methods and operators may make: checked before it is made."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

from jinja2.exceptions import SecurityError

from server.chat.budget import current

F = TypeVar("F", bound=Callable[..., Any])

MAX_NUMBER = 100_000
"""The largest number that a filter or a method takes: widths, counts and the like."""

MAX_SEPARATOR = 64
"""Characters between the parts of JSON."""

REFUSED = frozenset({"translate", "maketrans", "expandtabs", "to_bytes"})
"""Methods that make something large of something small, and that no template needs."""

UNBOUND = frozenset({"default", "d", "int", "float"})
"""Filters whose arguments are values, not sizes."""

WIDTH = re.compile(r"\d{5}|\*|:[^{}]*\{")
"""In a format string: a wide field, or one whose width is an argument."""


def check_method(owner: object, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a method. Raises SecurityError where the result may be too large."""
    if name in REFUSED:
        raise SecurityError(f"the method {name} is not served here")
    if isinstance(owner, str):
        if name == "join" and len(args) == 1:
            return (_parts(owner, args[0]),)
        if name == "replace":
            check_replace(owner, *args)
    if isinstance(owner, str | bytes | int | float):
        for value in args:
            check_number(value)
    return args


def check_number(value: object) -> None:
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise SecurityError(f"a number over {MAX_NUMBER:,} is no size")


def check_product(left: object, right: object) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | bytes | list | tuple) and isinstance(times, int):
            # Its weight, not its length: a list may hold long texts.
            current().fits(current().weigh(cast("object", value)) * max(times, 0))


def check_format(text: str) -> None:
    if WIDTH.search(text):
        raise SecurityError("a format string with such a width is not served here")


def check_replace(text: object, old: object = "", new: object = "", *_count: object) -> None:
    if isinstance(text, str) and isinstance(old, str) and isinstance(new, str):
        n_times = text.count(old)
        current().fits(len(text) + n_times * (len(new) - len(old)))


def _parts(separator: object, values: Iterable[object]) -> list[object]:
    """What is to be joined, if the result is not too large."""
    budget = current()
    taken: list[object] = []
    n_chars = 0
    for value in values:
        taken.append(value)
        n_chars += budget.weigh(value) + len(str(separator))
        budget.fits(n_chars)
    return taken


def guarded_join(join: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(join)
    def guarded(
        eval_ctx: object, value: Iterable[object], d: str = "", attribute: str | int | None = None
    ) -> Any:
        if attribute is not None:
            return join(eval_ctx, value, d, attribute)
        return join(eval_ctx, _parts(d, value), d)

    return guarded


def guarded_filter(name: str, filter: F) -> F:
    """The filter, with its arguments and its result checked."""

    @wraps(filter)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        # What jinja2 passes before the value is neither a number nor a text.
        texts = [value for value in args if isinstance(value, str)]
        if name not in UNBOUND:
            for value in (*args[1:], *kwargs.values()):
                check_number(value)
        if name == "format" and texts:
            check_format(texts[0])
        elif name == "replace":
            check_replace(*texts, *[kwargs[key] for key in ("old", "new") if key in kwargs])
        elif name == "indent" and texts:
            width = kwargs.get("width", args[1] if len(args) > 1 else 4)
            n_chars = len(width) if isinstance(width, str) else int(width)
            current().fits(len(texts[0]) + (texts[0].count("\n") + 1) * n_chars)
        return current().check(filter(*args, **kwargs))

    return cast("F", guarded)


def ticking(test: F) -> F:
    @wraps(test)
    def found(*args: Any, **kwargs: Any) -> Any:
        current().tick()
        return test(*args, **kwargs)

    return cast("F", found)


def sum_numbers(values: Iterable[Any], attribute: str | None = None, start: float = 0) -> Any:
    """jinja2's, of numbers: sums of lists take time that grows with the square of their number."""
    if attribute is not None:
        values = [cast("Mapping[str, Any]", value)[attribute] for value in values]
    taken = list(values)
    if not all(isinstance(value, int | float) for value in (start, *taken)):
        raise SecurityError("sum: of numbers only")
    return sum(taken, start)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """transformers' filter; jinja2's own escapes for HTML, which models were not trained on."""
    if len(indent if isinstance(indent, str) else "") + len("".join(separators or ())) > (
        MAX_SEPARATOR
    ):
        raise SecurityError("tojson: such separators are not served here")
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_listed,
    )
    # Deep values grow with the indent, so those are counted while they are written.
    return encoder.encode(value) if indent is None else current().concat(encoder.iterencode(value))


def _listed(value: object) -> Sequence[object]:
    """What jinja2's filters give, as a list: `tools | map(...) | tojson`."""
    if isinstance(value, Iterator):
        listed = list(cast("Iterator[object]", value))
        current().check(listed)
        return listed
    raise TypeError(f"a {type(value).__name__} has no JSON")
