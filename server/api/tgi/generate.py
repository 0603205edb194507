"""POST /generate, /generate_stream and /: a text is continued."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.api.body import json_body
from server.api.default_model import default_model
from server.api.deps import AppServices, Services
from server.api.envelope import visit_of
from server.api.loading import once_loaded
from server.api.openai.reply import Job, choices
from server.api.openapi import EVENT_STREAM, gives, streams
from server.api.tgi.errors import TGI_ERRORS, TgiRoute, error_event
from server.api.tgi.parameters import CompatRequest, TextRequest
from server.api.tgi.prompt import fitted
from server.api.tgi.wire import GenerateResponse, StreamResponse, special_names
from server.api.tgi.writers import Asked, Events, Whole
from server.ipc import GenerateRequest, Prompt
from server.sampling import SamplingParams

SEEDS = 2**31

router = APIRouter(route_class=TgiRoute)

EVENT = {"$ref": f"#/components/schemas/{StreamResponse.__name__}"}
"""For /openapi.json: an answer that is never whole."""


@router.post("/generate", responses=gives(GenerateResponse) | TGI_ERRORS)
async def generate(
    request: Request,
    services: AppServices,
    body: Annotated[TextRequest, Depends(json_body(TextRequest))],
) -> Response:
    """Continue a text, as TGI does."""
    return await _whole(request, services, body, listed=False)


@router.post(
    "/generate_stream",
    response_class=Response,
    responses={**TGI_ERRORS, 200: {"content": {EVENT_STREAM: {"schema": EVENT}}}},
)
async def generate_stream(
    request: Request,
    services: AppServices,
    body: Annotated[TextRequest, Depends(json_body(TextRequest))],
) -> Response:
    """Continue a text, as TGI does, token by token."""
    return await _stream(request, services, body)


@router.post(
    "/",
    responses=gives(list[GenerateResponse]) | streams(StreamResponse) | TGI_ERRORS,
)
async def compat_generate(
    request: Request,
    services: AppServices,
    body: Annotated[CompatRequest, Depends(json_body(CompatRequest))],
) -> Response:
    """Continue a text, as TGI does, streamed or whole.

    By default the answer begins with the prompt.
    """
    if body.parameters.return_full_text is None:
        full = body.parameters.model_copy(update={"return_full_text": True})
        body = body.model_copy(update={"parameters": full})
    if body.stream:
        return await _stream(request, services, body)
    return await _whole(request, services, body, listed=True)


async def _whole(request: Request, services: Services, body: TextRequest, listed: bool) -> Response:
    parameters = body.parameters
    job, prompt = await _begin(request, services, body, stream=False)
    scored = parameters.detailed or parameters.best_of > 1
    requests = _requests(body, job, prompt, scored)
    asked = _asked(body, job, requests, parameters.detailed)
    writer = Whole(asked, listed, visit_of(request).arrived)
    response = await job.reply(requests, len(requests), writer, stream=False)
    response.headers.update(writer.headers)
    return _described(response, body, job)


async def _stream(request: Request, services: Services, body: TextRequest) -> Response:
    model = body.model or default_model(services.pool)
    answer = _streamed(request, services, body)
    return await once_loaded(request, services, model, True, answer, error_event)


async def _streamed(request: Request, services: Services, body: TextRequest) -> Response:
    job, prompt = await _begin(request, services, body, stream=True)
    requests = _requests(body, job, prompt, scored=True)
    writer = Events(_asked(body, job, requests, body.parameters.details))
    response = await job.reply(requests, 1, writer, stream=True, done=b"", failure=error_event)
    return _described(response, body, job)


async def _begin(
    request: Request, services: Services, body: TextRequest, stream: bool
) -> tuple[Job, Prompt]:
    body.parameters.check(stream)
    model = body.model or default_model(services.pool)
    job = await Job.begin(request, services, model, body.sampling)
    return job, await fitted(job, body)


def _requests(body: TextRequest, job: Job, prompt: Prompt, scored: bool) -> list[GenerateRequest]:
    """One for each candidate, with a seed of its own if it draws."""
    parameters = body.parameters
    sampling = job.sampling
    if sampling.temperature and sampling.seed is None:
        sampling = sampling.model_copy(update={"seed": secrets.randbelow(SEEDS)})
    request = GenerateRequest(
        prompt=prompt,
        sampling=sampling,
        max_tokens=parameters.limit,
        stop=parameters.stop,
        keep_stop=True,
        prompt_param="inputs",
        grammar=parameters.shape(),
        logprobs=parameters.top_n_tokens if scored else None,
        echo=parameters.decoder_input_details,
    )
    return choices(request, parameters.best_of)


def _asked(body: TextRequest, job: Job, requests: list[GenerateRequest], details: bool) -> Asked:
    return Asked(
        prompt=body.inputs if body.parameters.return_full_text else "",
        stop=body.parameters.stop,
        seeds=[_seed(request.sampling) for request in requests],
        details=details,
        names=special_names(job.worker.info),
    )


def _seed(sampling: SamplingParams) -> int | None:
    return sampling.seed if sampling.temperature else None


def _described(response: Response, body: TextRequest, job: Job) -> Response:
    """With the headers that whole answers and streams have."""
    on_gpu = job.worker.info.n_gpu_layers > 0
    response.headers["x-compute-type"] = "gpu" if on_gpu else "cpu"
    response.headers["x-compute-characters"] = str(len(body.inputs))
    return response
