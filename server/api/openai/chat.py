"""POST /v1/chat/completions."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.responses import Response

from server.api.body import json_body
from server.api.default_model import named_model
from server.api.deps import AppServices, Services
from server.api.loading import once_loaded
from server.api.openai.chat_answer import ChatCompletion, ChatCompletionChunk
from server.api.openai.chat_wire import ChatChunks, ChatWhole
from server.api.openai.documents import shaped
from server.api.openai.logprobs import MAX_TOP
from server.api.openai.messages import Message, for_template
from server.api.openai.reasoning import Effort, template_variables
from server.api.openai.reply import Job, choices
from server.api.openai.schema import GenerationBody, Head, MaxTokens
from server.api.openai.templates import Templated
from server.api.openai.tools import Tools
from server.api.openai.turns import Turns
from server.api.openapi import gives, streams
from server.chat.format import plan_for
from server.chat.turn import Plan, Turn
from server.errors import InvalidRequest
from server.ipc import GenerateRequest
from server.pool.worker import Worker

router = APIRouter()


class ChatCompletionRequest(GenerationBody, Tools, Templated):
    """The body."""

    messages: tuple[Message, ...] = Field(min_length=1)
    max_completion_tokens: MaxTokens = None
    logprobs: bool = False
    top_logprobs: int | None = Field(
        default=None, ge=0, le=MAX_TOP, description="best tokens to tell in each place"
    )
    reasoning_effort: Effort | None = Field(
        default=None, description="passed to the chat template; none: no thinking at all"
    )
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False

    @property
    def n_logprobs(self) -> int | None:
        """Raises InvalidRequest."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest(
                "top_logprobs: only allowed when logprobs is true", param="top_logprobs"
            )
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def variables(self) -> Mapping[str, object]:
        """What the template is told beside the messages. Raises InvalidRequest."""
        effort = self.reasoning_effort
        return template_variables(self.chat_template_kwargs, effort, "reasoning_effort")

    @property
    def turn(self) -> Turn:
        """Raises InvalidRequest."""
        add_generation_prompt = self.add_generation_prompt
        if add_generation_prompt is None:
            add_generation_prompt = not self.continue_final_message
        return Turn(
            messages=for_template(self.messages),
            tools=self.offered,
            tool_choice=self.choice,
            # The deprecated form has room for one call.
            parallel_tool_calls=self.parallel_tool_calls and not self.legacy,
            answer=self.answer_grammar,
            variables=self.variables,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=self.continue_final_message,
            documents=shaped(self.documents),
            template=self.chat_template,
        )

    async def plan(self, request: Request, worker: Worker) -> Plan:
        """How the turn is put to the worker's model. Raises InvalidRequest."""
        n_bytes = len(await request.body())
        return await self.rendered(
            request, n_bytes, lambda: plan_for(worker.config, worker.info, self.turn)
        )


@router.post("/chat/completions", responses=gives(ChatCompletion) | streams(ChatCompletionChunk))
async def create_chat_completion(
    request: Request,
    services: AppServices,
    body: Annotated[ChatCompletionRequest, Depends(json_body(ChatCompletionRequest))],
) -> Response:
    """Answer a conversation."""
    model = named_model(services.pool, body.model)
    answer = _answer(request, services, body, model)
    return await once_loaded(request, services, model, body.stream, answer)


async def _answer(
    request: Request, services: Services, body: ChatCompletionRequest, model: str
) -> Response:
    job = await Job.begin(request, services, model, body.extras)
    worker = job.worker
    plan = await body.plan(request, worker)
    generate = GenerateRequest(
        prompt=plan.prompt,
        sampling=job.sampling,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop=body.stop + plan.stop,
        cache_prompt=body.cache_prompt,
        prompt_param="messages",
        grammar=plan.grammar,
        visible=plan.visible,
        logprobs=body.n_logprobs,
    )
    turns = Turns(plan, body.n)
    head = Head.new("chatcmpl", worker.model, worker.info)
    if body.stream:
        writer = ChatChunks(turns, head, body.legacy, body.include_usage)
    else:
        writer = ChatWhole(turns, body.n, head, body.legacy, body.logprobs)
    return await job.reply(choices(generate, body.n), body.n, writer, body.stream)
