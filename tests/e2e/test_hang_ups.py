"""Two hundred clients that hang up at random moments leave nothing behind."""

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import httpx
from openai import OpenAI

from tests.e2e.asking import MODEL, forced, say, scrape, until_idle, user
from tests.e2e.process import Corral

N_CLIENTS = 200
AT_ONCE = 32
SEED = 20

Moment = Literal["sending", "waiting", "some time", "reading"]
MOMENTS: Sequence[Moment] = ("sending", "waiting", "some time", "reading")


@dataclass(frozen=True)
class Plan:
    """When one client hangs up: within its request, after it, after a time or so many bytes."""

    request: bytes
    moment: Moment
    n_sent: int
    seconds: float
    n_read: int
    rudely: bool
    """By a reset instead of a close."""


def plan(rng: random.Random, number: int) -> Plan:
    """One client's fate."""
    n_words = rng.choice((1, 20, 300))
    # A prefix that some share and others do not, so that copies are cut off too.
    prompt = f"{number % 5} " + "word " * n_words + str(number)
    body = json.dumps(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "n": rng.choice((1, 1, 3)),
            "stream": rng.random() < 0.7,
            # So many that slots which are not freed are missed for minutes.
            "max_tokens": rng.choice((1, 8, 1000)),
            "ignore_eos": True,
        }
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    return Plan(
        request,
        moment=rng.choice(MOMENTS),
        n_sent=rng.randrange(len(request)),
        seconds=rng.uniform(0, 0.5),
        n_read=rng.randrange(1, 4000),
        rudely=rng.random() < 0.5,
    )


async def visit(host: str, port: int, plan: Plan) -> None:
    """Connect, go as far as the plan says, and hang up."""
    reader, writer = await asyncio.open_connection(host, port)
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        match plan.moment:
            case "sending":
                writer.write(plan.request[: plan.n_sent])
                await writer.drain()
            case "waiting":
                writer.write(plan.request)
                await writer.drain()
            case "some time":
                writer.write(plan.request)
                with suppress(TimeoutError):
                    async with asyncio.timeout(plan.seconds):
                        await reader.read()
            case "reading":
                writer.write(plan.request)
                # A whole answer may be shorter; then the end comes while the client waits.
                with suppress(TimeoutError):
                    async with asyncio.timeout(10):
                        await reader.readexactly(plan.n_read)
    if plan.rudely:
        writer.transport.abort()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_two_hundred_clients_hang_up(
    corral: Corral, url: str, http: httpx.Client, sdk: OpenAI
) -> None:
    address = httpx.URL(url)
    assert address.port is not None
    host, port = address.host, address.port
    workers = {worker.pid for worker in corral.workers()}
    rng = random.Random(SEED)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(plan: Plan) -> None:
        async with room:
            await visit(host, port, plan)

    await asyncio.gather(*(one(plan(rng, number)) for number in range(N_CLIENTS)))
    until_idle(http)
    # Half a second after the last request the worker counts its slots and cells, and dies if
    # one is lost.
    assert corral.log.wait_for("the worker died", within_s=1.0) is None
    assert workers <= {worker.pid for worker in corral.workers()}
    assert scrape(http).load(MODEL) == (0, 0)
    assert say(sdk, user("Hi"), forced(1234, 3))
