"""POST /v1/chat/completions."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.responses import Response

from server.api.body import json_body
from server.api.deps import AppServices
from server.api.openai.chat_answer import ChatCompletion, ChatCompletionChunk
from server.api.openai.chat_wire import ChatChunks, ChatWhole
from server.api.openai.logprobs import MAX_TOP
from server.api.openai.messages import Message, for_template
from server.api.openai.reply import Job, choices
from server.api.openai.schema import GenerationBody, Head, MaxTokens
from server.api.openai.tools import Tools
from server.api.openai.turns import Turns
from server.api.openapi import streams
from server.chat.format import chat_format
from server.chat.turn import Plan, Turn
from server.errors import InvalidRequest
from server.ipc import GenerateRequest
from server.pool.worker import Worker

INLINE_BYTES = 64 * 1024
"""Bodies up to this size are rendered on the event loop."""

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

router = APIRouter()


class ChatCompletionRequest(GenerationBody, Tools):
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
    chat_template_kwargs: dict[str, object] = Field(
        default_factory=dict[str, object], description="variables of the chat template"
    )

    @property
    def n_logprobs(self) -> int | None:
        """Raises InvalidRequest."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest(
                "top_logprobs: only allowed when logprobs is true", param="top_logprobs"
            )
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def variables(self) -> dict[str, object]:
        """What the template is told beside the messages. Raises InvalidRequest."""
        given = self.chat_template_kwargs
        if self.reasoning_effort is None:
            return given
        if given.get("reasoning_effort", self.reasoning_effort) != self.reasoning_effort:
            raise InvalidRequest(
                "reasoning_effort: chat_template_kwargs has another value", param="reasoning_effort"
            )
        thinking = {"enable_thinking": False} if self.reasoning_effort == "none" else {}
        return {**thinking, **given, "reasoning_effort": self.reasoning_effort}

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
        )


@router.post(
    "/chat/completions", response_model=ChatCompletion, responses=streams(ChatCompletionChunk)
)
async def create_chat_completion(
    request: Request,
    services: AppServices,
    body: Annotated[ChatCompletionRequest, Depends(json_body(ChatCompletionRequest))],
) -> Response:
    """Answer a conversation."""
    job = await Job.begin(request, services, body.model, body.extras)
    # A long conversation takes a while, which streams should not notice.
    long = len(await request.body()) > INLINE_BYTES
    worker = job.worker
    plan = await asyncio.to_thread(_plan, body, worker) if long else _plan(body, worker)
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


def _plan(body: ChatCompletionRequest, worker: Worker) -> Plan:
    return chat_format(worker.config, worker.info).plan(body.turn)
