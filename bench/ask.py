"""Whole answers: JSON posted from as many threads as there are clients, timed from end to end."""

import http.client
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.load import Address, LoadError

TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Told:
    """One answer's JSON, and the seconds that it took."""

    body: Any
    seconds: float


def ask(address: Address, path: str, payload: object) -> Told:
    """Post one request. Raises LoadError unless it is answered with 200."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        start = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(payload), headers)
        response = connection.getresponse()
        raw = response.read()
        seconds = time.perf_counter() - start
    finally:
        connection.close()
    if response.status != 200:
        raise LoadError(f"status {response.status}: {raw[-500:]!r}")
    return Told(json.loads(raw), seconds)


def ask_together(address: Address, path: str, payloads: Sequence[object]) -> list[Told]:
    """Post all requests at the same time."""
    with ThreadPoolExecutor(len(payloads)) as pool:
        return list(pool.map(partial(ask, address, path), payloads))
