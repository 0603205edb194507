"""From a sound request to its response. Streamed and whole answers take the same way."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol, assert_never

from fastapi import Request
from starlette.responses import JSONResponse, Response

from server.api.answers import Answers, End, EndReason, Piece, Tokens
from server.api.deps import Services, until_gone
from server.api.envelope import visit_of
from server.api.fields import merge_sampling, report_unserved, sort_out
from server.api.openai.schema import GenerationBody
from server.api.sse import EventStream
from server.ipc import GenerateRequest, Prompt
from server.pool.worker import Worker
from server.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Choice:
    """One complete choice."""

    text: str
    reason: EndReason


class Wire(Protocol):
    """How one endpoint writes an answer, in chunks or whole."""

    prompt_param: str
    """The field that errors about the prompt are reported for."""

    def piece(self, piece: Piece) -> bytes: ...

    def end(self, end: End) -> bytes: ...

    def usage(self, tokens: Tokens) -> bytes: ...

    def whole(self, choices: Sequence[Choice], tokens: Tokens) -> bytes: ...


async def reply(
    request: Request,
    services: Services,
    body: GenerationBody,
    worker: Worker,
    prompts: Sequence[Prompt],
    wire: Wire,
) -> Response:
    """Submit, wait for the verdict on every choice, then stream or collect."""
    visit = visit_of(request)
    server = services.config.server
    extras = sort_out(body.extras)
    headers = report_unserved(extras.unserved, server.unknown_fields, visit.request_id)
    sampling = merge_sampling(worker.config.sampling, extras.sampling)
    requests = _plan(body, sampling, prompts, wire.prompt_param)
    with ExitStack() as stack:
        answers = Answers(worker, requests, body.n, services.metrics, visit.arrived)
        stack.callback(answers.close)
        async with until_gone(request):
            await answers.accepted()
        if body.stream:
            stack.pop_all()
            events = _stream(answers, wire, body.include_usage)
            return EventStream(events, answers.close, visit, server.ping_s, headers)
        async with until_gone(request):
            whole = await _collect(answers, wire)
        return Response(whole, headers=headers, media_type=JSONResponse.media_type)


def _plan(
    body: GenerationBody, sampling: SamplingParams, prompts: Sequence[Prompt], prompt_param: str
) -> list[GenerateRequest]:
    """One request for each choice: `n` in a row for each prompt, with seeds of their own."""
    seed = sampling.seed
    seeded = [
        sampling if seed is None else sampling.model_copy(update={"seed": seed + i})
        for i in range(body.n)
    ]
    return [
        GenerateRequest(prompt, params, body.limit, body.stop, body.cache_prompt, prompt_param)
        for prompt in prompts
        for params in seeded
    ]


async def _stream(answers: Answers, wire: Wire, include_usage: bool) -> AsyncGenerator[bytes]:
    async for event in answers.events():
        match event:
            case Piece():
                yield wire.piece(event)
            case End():
                yield wire.end(event)
            case Tokens():
                if include_usage:
                    yield wire.usage(event)
            case _:
                assert_never(event)


async def _collect(answers: Answers, wire: Wire) -> bytes:
    texts: dict[int, list[str]] = {}
    choices: dict[int, Choice] = {}
    async for event in answers.events():
        match event:
            case Piece():
                texts.setdefault(event.index, []).append(event.text)
            case End():
                choices[event.index] = Choice("".join(texts.get(event.index, ())), event.reason)
            case Tokens():
                return wire.whole([choices[index] for index in sorted(choices)], event)
            case _:
                assert_never(event)
    raise AssertionError("the answers ended without their token counts")
