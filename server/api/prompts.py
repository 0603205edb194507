"""POST /apply-template and POST /chat/completions/input_tokens: prompts without their answers.

Both are llama-server's, whose clients need not name the model.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from server.api.body import json_body
from server.api.default_model import default_model
from server.api.deps import AppServices, Services, until_gone
from server.api.openai.chat import ChatCompletionRequest
from server.api.openai.reply import Job
from server.api.openai.responses.resource import InputTokens
from server.api.openapi import Sent, gives, sent
from server.ipc import Text, Tokenize, Tokenized
from server.pool.worker import Worker

router = APIRouter()


class Conversation(ChatCompletionRequest):
    """A chat request whose answer is not wanted."""

    model: str = ""

    async def job(self, request: Request, services: Services) -> Job:
        """As a chat completion begins. Raises the errors of unknown models and bad fields."""
        model = self.model or default_model(services.pool)
        return await Job.begin(request, services, model, self.extras)

    async def prompt(self, request: Request, worker: Worker) -> Text:
        """What a chat completion would begin with. Raises InvalidRequest."""
        return (await self.plan(request, worker)).prompt


class UsedTemplate(Sent):
    """Which template it was, who chose it, and why."""

    name: str | None
    origin: Literal["request", "configuration", "GGUF", "family"]
    reason: str


class PromptText(Sent):
    """The text; special tokens are written out in it."""

    prompt: str
    template: UsedTemplate
    stop: tuple[str, ...]
    """The template's stop strings."""


@router.post("/apply-template", responses=gives(PromptText))
async def apply_template(
    request: Request,
    services: AppServices,
    body: Annotated[Conversation, Depends(json_body(Conversation))],
) -> Response:
    """The prompt that a chat completion would begin with."""
    job = await body.job(request, services)
    plan = await body.plan(request, job.worker)
    used = UsedTemplate.model_validate(plan.template._asdict())
    found = PromptText(prompt=plan.prompt.text, template=used, stop=plan.stop)
    return sent(found, job.headers)


@router.post("/chat/completions/input_tokens", responses=gives(InputTokens))
async def count_chat_tokens(
    request: Request,
    services: AppServices,
    body: Annotated[Conversation, Depends(json_body(Conversation))],
) -> Response:
    """How many tokens the prompt of a chat completion would have."""
    job = await body.job(request, services)
    prompt = await body.prompt(request, job.worker)
    question = Tokenize(prompt.text, literal=prompt.literal)
    async with until_gone(request):
        found = await job.worker.ask(question, Tokenized)
    return sent(InputTokens(input_tokens=len(found.tokens)), job.headers)
