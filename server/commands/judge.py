"""A judge: a model, asked over HTTP what an answer is worth."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import httpx2

from server.commands.endpoint import Endpoint, reason

Messages = Sequence[Mapping[str, str]]

LEAST, MOST = 1, 10
"""Ratings."""

RATING = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")

N_TRIES = 3
BUSY = (429, 500, 502, 503, 504)

TASK = (
    "You grade how well an assistant answers a user. Look at whether the answer is correct, does "
    "what was asked, is complete, and is pleasant to read; length alone is no merit. First give "
    "your reasons in a few sentences."
)
DEMAND = (
    "End with a grade n in double brackets, from 1 (worthless) to 10 (excellent): Rating: [[n]]"
)
"""Without an example of a number, which weak judges would copy."""

SCHEMA = {
    "type": "object",
    "properties": {
        "reasons": {"type": "string", "maxLength": 1500},
        "rating": {"type": "integer", "minimum": LEAST, "maximum": MOST},
    },
    "required": ["reasons", "rating"],
    "additionalProperties": False,
}


class AskError(Exception):
    """A request that was not answered; says why."""


async def ask(client: httpx2.AsyncClient, endpoint: Endpoint, body: Mapping[str, object]) -> str:
    """The text of a chat answer. Raises AskError."""
    why = ""
    for i in range(N_TRIES):
        try:
            answer = await client.post(
                f"{endpoint.url}/v1/chat/completions",
                headers=dict(endpoint.headers),
                json={"model": endpoint.model, **body},
            )
        except httpx2.HTTPError as error:
            why = f"{endpoint.url}: {error or type(error).__name__}"
        else:
            if answer.is_success:
                return _content(answer)
            why = reason(answer)
            if answer.status_code not in BUSY:
                break
        if i + 1 < N_TRIES:
            await asyncio.sleep(2**i)
    raise AskError(why)


def _content(answer: httpx2.Response) -> str:
    try:
        found = answer.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise AskError(f"no chat completion: {answer.text[:200]}") from error
    return str(found or "")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of one answer; no rating: none could be read, or `error` says why."""

    text: str
    rating: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Rates answers from 1 to 10."""

    endpoint: Endpoint
    enforced: bool = False
    """Whether its answers are held to a JSON schema, instead of being asked for `[[n]]`."""
    max_tokens: int = 2048

    async def rate(
        self, client: httpx2.AsyncClient, talk: Messages, reference: str | None
    ) -> Judgement:
        """Rate the last answer of a conversation."""
        body: dict[str, object] = {
            "messages": self._messages(talk, reference),
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        if self.enforced:
            schema = {"name": "judgement", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        try:
            text = await ask(client, self.endpoint, body)
        except AskError as error:
            return Judgement("", None, str(error))
        return Judgement(text, rating_in_json(text) if self.enforced else rating_in(text))

    def _messages(self, talk: Messages, reference: str | None) -> Messages:
        parts = [f"<{message['role']}>\n{message['content']}\n</{message['role']}>"
                 for message in talk]  # fmt: skip
        if reference:
            parts.append(f"<reference>\n{reference}\n</reference>")
        which = "last answer; what came before is there for context" if len(talk) > 2 else "answer"
        hint = " The reference is a correct answer." if reference else ""
        demand = "" if self.enforced else f" {DEMAND}"
        parts.append(f"Grade the assistant's {which}.{hint}{demand}")
        return [
            {"role": "system", "content": TASK},
            {"role": "user", "content": "\n\n".join(parts)},
        ]


def rating_in(text: str) -> float | None:
    """The last `[[n]]` of a text, if that is a rating."""
    found = RATING.findall(text)
    return _rating(found[-1]) if found else None


def rating_in_json(text: str) -> float | None:
    """`rating` of a JSON object."""
    try:
        found: object = json.loads(text)
    except ValueError:
        return None
    return (
        _rating(cast("dict[str, object]", found).get("rating")) if isinstance(found, dict) else None
    )


def _rating(value: object) -> float | None:
    try:
        rating = float(str(value))
    except ValueError:
        return None
    return rating if LEAST <= rating <= MOST else None
