"""Suspects: which requests were running when their worker died."""

import hashlib
import pickle
import time
from collections.abc import Callable

from server.errors import RequestRefused
from server.ipc import GenerateRequest

MAX_DEATHS = 2
"""A request that was there at so many deaths in a row is refused."""

MEMORY_S = 600.0
"""Seconds after which a death is forgotten."""


class Suspects:
    """Deaths by request, told apart by their whole content. One for each model.

    They are forgotten after a while: not every death is the fault of a request.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deaths: dict[bytes, list[float]] = {}

    def accuse(self, request: GenerateRequest) -> None:
        """The worker died while `request` ran."""
        self._deaths.setdefault(_fingerprint(request), []).append(self._clock())

    def clear(self, request: GenerateRequest) -> None:
        """The worker outlived `request`."""
        if self._deaths:
            self._deaths.pop(_fingerprint(request), None)

    def check(self, request: GenerateRequest) -> None:
        """Raises RequestRefused where `request` has done enough harm of late."""
        if not self._deaths:
            return
        since = self._clock() - MEMORY_S
        self._deaths = {key: times for key, times in self._deaths.items() if times[-1] > since}
        if len(self._deaths.get(_fingerprint(request), ())) >= MAX_DEATHS:
            raise RequestRefused(
                f"this request was running {MAX_DEATHS} times when its worker died; it is refused "
                f"for {MEMORY_S / 60:g} minutes"
            )


def _fingerprint(request: GenerateRequest) -> bytes:
    return hashlib.blake2b(pickle.dumps(request), digest_size=16).digest()
