"""POST /v1/completions."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BeforeValidator, Field, PlainValidator
from starlette.responses import Response

from server.api.body import json_body
from server.api.default_model import default_model
from server.api.deps import AppServices, Services
from server.api.loading import once_loaded
from server.api.openai.completions_wire import (
    Completion,
    CompletionChunk,
    CompletionChunks,
    CompletionWhole,
)
from server.api.openai.inputs import WIRE_FORM, read_inputs
from server.api.openai.logprobs import MAX_TOP
from server.api.openai.reply import Job, choices
from server.api.openai.schema import MAX_CHOICES, MAX_N, GenerationBody, Head, MaxTokensOrZero
from server.api.openapi import gives, streams
from server.errors import InvalidRequest
from server.ipc import GenerateRequest, Infill, Prompt, Text

DEFAULT_MAX_TOKENS = 16

router = APIRouter()


def _read_prompts(value: object) -> tuple[Text | tuple[int, ...], ...]:
    return tuple(
        Text(prompt) if isinstance(prompt, str) else prompt for prompt in read_inputs(value)
    )


def _read_logprobs(value: object) -> object:
    """False, as chat requests have it, is not 0: that asks for the tokens' own scores."""
    if value is True:
        raise ValueError("must be the number of best tokens to tell")
    return None if value is False else value


NumberOfBest = Annotated[int, Field(ge=0, le=MAX_TOP)]


class CompletionRequest(GenerationBody):
    """The body. Without a model, as llama-server's clients send it, the default one is asked."""

    model: str = ""
    prompt: Annotated[
        tuple[Text | tuple[int, ...], ...],
        PlainValidator(
            _read_prompts,
            json_schema_input_type=WIRE_FORM,
        ),
    ]
    suffix: str = Field(default="", description="what follows after the text that is wanted")
    max_tokens: MaxTokensOrZero = DEFAULT_MAX_TOKENS
    echo: bool = Field(default=False, description="begin the answer with the prompt")
    logprobs: Annotated[
        NumberOfBest | None,
        BeforeValidator(
            _read_logprobs, json_schema_input_type=NumberOfBest | Literal[False] | None
        ),
    ] = Field(default=None, description="best tokens to tell in each place")
    best_of: int | None = Field(
        default=None, ge=1, le=MAX_N, description="candidates, of which the n likeliest are told"
    )

    @property
    def n_candidates(self) -> int:
        """Answers to generate for each prompt. Raises InvalidRequest."""
        if self.best_of is None:
            return self.n
        if self.best_of < self.n:
            raise InvalidRequest(
                f"best_of: must be at least n = {self.n}, got {self.best_of}", param="best_of"
            )
        if self.stream and self.best_of > self.n:
            raise InvalidRequest("best_of: only allowed when stream is false", param="best_of")
        return self.best_of

    @property
    def ranked(self) -> bool:
        """Whether there are more candidates than choices."""
        return self.n_candidates > self.n

    def asked(self) -> Iterator[Prompt]:
        """What is put to the engine. Raises InvalidRequest."""
        if not self.suffix:
            yield from self.prompt
            return
        if self.echo:
            raise InvalidRequest("echo: not possible with a suffix", param="echo")
        for prompt in self.prompt:
            if not isinstance(prompt, Text):
                raise InvalidRequest("suffix: only possible with texts as prompts", param="suffix")
            yield Infill(prompt.text, self.suffix)


@router.post("/completions", responses=gives(Completion) | streams(CompletionChunk))
async def create_completion(
    request: Request,
    services: AppServices,
    body: Annotated[CompletionRequest, Depends(json_body(CompletionRequest))],
) -> Response:
    """Continue one or more texts."""
    model = body.model or default_model(services.pool)
    answer = _answer(request, services, body, model)
    return await once_loaded(request, services, model, body.stream, answer)


async def _answer(
    request: Request, services: Services, body: CompletionRequest, model: str
) -> Response:
    n = body.n_candidates
    _check_number(len(body.prompt), n)
    prompts = tuple(body.asked())
    job = await Job.begin(request, services, model, body.extras)
    worker = job.worker
    _check_vocabulary(body.prompt, worker.info.n_vocab)
    generate = GenerateRequest(
        prompt=prompts[0],
        sampling=job.sampling,
        max_tokens=body.max_tokens,
        stop=body.stop,
        cache_prompt=body.cache_prompt,
        prompt_param="prompt",
        grammar=body.answer_grammar,
        logprobs=0 if body.logprobs is None and body.ranked else body.logprobs,
        echo=body.echo,
    )
    requests = [
        candidate
        for prompt in prompts
        for candidate in choices(replace(generate, prompt=prompt), n)
    ]
    head = Head.new("cmpl", worker.model, worker.info)
    echoed = [prompt.text if isinstance(prompt, Text) else None for prompt in body.prompt]
    if body.stream:
        writer = CompletionChunks(head, echoed, n, body.logprobs is not None, body.include_usage)
    else:
        writer = CompletionWhole(head, echoed, n, body.logprobs is not None, body.n)
    return await job.reply(requests, n, writer, body.stream)


def _check_number(n_prompts: int, n: int) -> None:
    if n_prompts * n > MAX_CHOICES:
        raise InvalidRequest(
            f"{n_prompts} prompts x {n} = {n_prompts * n} choices, at most {MAX_CHOICES}",
            param="prompt",
        )


def _check_vocabulary(prompts: Sequence[Prompt], n_vocab: int) -> None:
    """llama.cpp would abort on an id that the model does not have."""
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, tuple):
            continue
        for i, id in enumerate(prompt):
            if not 0 <= id < n_vocab:
                path = f"prompt.{i}" if len(prompts) == 1 else f"prompt.{number}.{i}"
                raise InvalidRequest(
                    f"{path}: token id {id}, the vocabulary has {n_vocab} tokens", param=path
                )
