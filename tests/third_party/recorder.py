"""Stands between a client and the server: writes down what is asked, and shortens the answers."""

import json
from collections.abc import Generator
from contextlib import contextmanager

import httpx

from tests.commands.http_server import Asked, Listening, Said, answering
from tests.e2e.process import ANSWER_S

N_TOKENS = 48
"""Of an answer, which may else be as long as a task allows."""


@contextmanager
def recording(url: str) -> Generator[Listening]:
    """In front of the server at `url`; requests are written down as they came."""
    with httpx.Client(base_url=url, timeout=ANSWER_S) as server:

        def forward(asked: Asked) -> Said:
            if asked.body is None:
                response = server.get(asked.path)
            else:
                body = dict(asked.body)
                if body.get("max_tokens", 0) > N_TOKENS:
                    body["max_tokens"] = N_TOKENS
                response = server.post(asked.path, json=body)
            return Said(response.status_code, json.loads(response.text))

        with answering(forward) as listening:
            yield listening
