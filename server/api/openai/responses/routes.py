"""POST /responses and POST /responses/input_tokens."""

from contextlib import ExitStack
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from server.api.answers import Answers
from server.api.body import json_body
from server.api.default_model import default_model
from server.api.deps import AppServices, Services, until_gone
from server.api.envelope import visit_of
from server.api.loading import once_loaded
from server.api.openai.reply import Job
from server.api.openai.responses.begin import begin
from server.api.openai.responses.context import Context, context_of, count, plan_of
from server.api.openai.responses.events import ResponseEvent
from server.api.openai.responses.request import ENCRYPTED, PromptRequest, ResponsesRequest
from server.api.openai.responses.resource import InputTokens, ResponseObject
from server.api.openai.responses.runs import Run
from server.api.openai.responses.store import ResponseStore
from server.api.openai.responses.stored import followed
from server.api.openai.responses.writer import Writer, failed_at
from server.api.openai.turns import Turns
from server.api.openapi import gives, sent, streams
from server.api.sse import EventStream
from server.chat.turn import Plan
from server.errors import UnsupportedParameter
from server.ipc import GenerateRequest

router = APIRouter()


@router.post("/responses", responses=gives(ResponseObject) | streams(ResponseEvent))
async def create_response(
    request: Request,
    services: AppServices,
    body: Annotated[ResponsesRequest, Depends(json_body(ResponsesRequest))],
) -> Response:
    """Answer what is said, in items."""
    answer = _answer(request, services, body)
    return await once_loaded(
        request, services, body.model, body.stream, answer, partial(failed_at, 0)
    )


async def _answer(request: Request, services: Services, body: ResponsesRequest) -> Response:
    runs = services.runs
    ignored = _unkept(body, runs.store)
    context = await context_of(body, runs.store)
    job = await Job.begin(request, services, body.model, {**body.unserved, **ignored})
    async with until_gone(request):
        plan = await plan_of(body, context, job.worker, request)
    visit = visit_of(request)
    with ExitStack() as stack:
        asked = _generate(body, plan, job)
        answers = Answers(job.worker, [asked], 1, services.metrics, visit.arrived)
        stack.callback(answers.close)
        async with until_gone(request):
            await answers.accepted()
        run = _run(body, context, job, plan, answers, runs.store)
        if body.background:
            queued = run.writer.response.model_dump_json()
            background = await runs.begin(run)
            stack.pop_all()
            if body.stream:
                told = background.follow(-1)
                return followed(
                    request, services, told, lambda: len(background.frames), job.headers
                )
            return Response(queued, headers=job.headers, media_type=JSONResponse.media_type)
        if body.stream:
            stack.pop_all()
            return _stream(run, job)
        async with until_gone(request):
            async for _ in run.events():
                pass
    return sent(run.writer.response, job.headers)


class CountRequest(PromptRequest):
    """A request whose answer is not wanted. Clients of OpenAI's need not name the model."""

    model: str = ""


@router.post("/responses/input_tokens", responses=gives(InputTokens))
async def count_input_tokens(
    request: Request,
    services: AppServices,
    body: Annotated[CountRequest, Depends(json_body(CountRequest))],
) -> Response:
    """How many tokens the prompt of a response would have."""
    context = await context_of(body, services.runs.store)
    model = body.model or default_model(services.pool)
    job = await Job.begin(request, services, model, body.unserved)
    async with until_gone(request):
        plan = await plan_of(body, context, job.worker, request)
        n_tokens = await count(plan, job.worker)
    return sent(InputTokens(input_tokens=n_tokens), job.headers)


def _unkept(body: ResponsesRequest, store: ResponseStore | None) -> dict[str, object]:
    """What cannot be had without a store. Raises UnsupportedParameter."""
    if store is not None:
        return {}
    if body.background:
        raise UnsupportedParameter(
            "background: this server keeps no responses, as server.store is not configured",
            param="background",
        )
    return {"store": True} if body.store else {}


def _generate(body: ResponsesRequest, plan: Plan, job: Job) -> GenerateRequest:
    return GenerateRequest(
        prompt=plan.prompt,
        sampling=job.sampling,
        max_tokens=body.max_output_tokens,
        stop=body.stop + plan.stop,
        cache_prompt=body.cache_prompt,
        prompt_param="input",
        grammar=plan.grammar,
        visible=plan.visible,
        logprobs=body.n_logprobs,
    )


def _run(
    body: ResponsesRequest,
    context: Context,
    job: Job,
    plan: Plan,
    answers: Answers,
    store: ResponseStore | None,
) -> Run:
    """The response that `answers` are to become."""
    kept = store is not None and body.store is not False
    response = begin(body, job, kept)
    writer = Writer(response, scored=body.n_logprobs is not None, sealed=ENCRYPTED in body.include)
    record = context.record(response) if kept else None
    return Run(answers, Turns(plan, 1), writer, record, store)


def _stream(run: Run, job: Job) -> EventStream:
    ping_s = job.services.config.server.ping_s
    visit = visit_of(job.request)
    return EventStream(
        run.events(), run.close, visit, ping_s, job.headers, done=b"", failure=run.fail
    )
