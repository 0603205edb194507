"""keep_alive and ttl: how long a request wants its model kept once it is idle again."""

import math
import re
from collections.abc import Mapping

from server.errors import InvalidRequest

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
PART = r"(\d+(?:\.\d+)?)(ms|s|m|h)"
DURATION = re.compile(rf"-?(?:{PART})+")


def read_keep_alive(extras: Mapping[str, object]) -> float | None:
    """Seconds of `keep_alive` (Ollama's: a number, or a text as `5m`), else of `ttl` (LM Studio's).

    Negative: for good. None: neither is there. Raises InvalidRequest.
    """
    for name in ("keep_alive", "ttl"):
        value = extras.get(name)
        if value is not None:
            seconds = _seconds(value)
            if seconds is None:
                wanted = "seconds, or a text as 5m or 1h30m; negative: for good"
                raise InvalidRequest(f"{name}: {wanted}; got {value!r:.60}", param=name)
            return seconds
    return None


def _seconds(value: object) -> float | None:
    """None where it says no length of time."""
    try:
        match value:
            case bool():
                return None
            case int() | float():
                seconds = float(value)
            case str():
                seconds = _read(value.strip())
            case _:
                return None
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def _read(text: str) -> float:
    """Raises ValueError."""
    if not DURATION.fullmatch(text):
        return float(text)
    seconds = sum(float(n) * SECONDS[unit] for n, unit in re.findall(PART, text))
    return -seconds if text.startswith("-") else seconds
