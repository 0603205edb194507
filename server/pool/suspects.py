"""Suspects: which requests were running when their worker died."""

import hashlib
import pickle

from server.errors import RequestRefused
from server.ipc import GenerateRequest

MAX_DEATHS = 2
"""A request that was there at so many deaths in a row is refused."""


class Suspects:
    """Deaths by request, told apart by their whole content. One for each model."""

    def __init__(self) -> None:
        self._deaths: dict[bytes, int] = {}

    def accuse(self, request: GenerateRequest) -> None:
        """The worker died while `request` ran."""
        key = _fingerprint(request)
        self._deaths[key] = self._deaths.get(key, 0) + 1

    def clear(self, request: GenerateRequest) -> None:
        """The worker outlived `request`."""
        if self._deaths:
            self._deaths.pop(_fingerprint(request), None)

    def check(self, request: GenerateRequest) -> None:
        """Raises RequestRefused where `request` has done enough harm."""
        if self._deaths and self._deaths.get(_fingerprint(request), 0) >= MAX_DEATHS:
            raise RequestRefused(
                f"this request was running {MAX_DEATHS} times when its worker died; it is refused"
            )


def _fingerprint(request: GenerateRequest) -> bytes:
    return hashlib.blake2b(pickle.dumps(request), digest_size=16).digest()
