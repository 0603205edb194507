"""From a request to its prompt: what was said before, what is said now, and what of it fits."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fastapi import Request

from server.api.deps import aside
from server.api.openai.documents import shaped
from server.api.openai.responses.items import Kept, Reference, kept_items
from server.api.openai.responses.messages import droppable, to_messages, without
from server.api.openai.responses.request import PromptRequest
from server.api.openai.responses.resource import ResponseObject
from server.api.openai.responses.store import (
    Record,
    ResponseStore,
    item_not_stored,
    previous_not_stored,
)
from server.chat.format import plan_for
from server.chat.turn import Plan, Turn
from server.errors import InvalidRequest
from server.ipc import Tokenize, Tokenized
from server.pool.worker import Worker


class Context(NamedTuple):
    """A conversation up to the answer."""

    past: Sequence[Record]
    """The responses before, oldest first."""
    input: Sequence[Kept]
    """What is new."""

    @property
    def size(self) -> int:
        """Bytes of the past."""
        return sum(len(record.body) + len(record.input) for record in self.past)

    @property
    def items(self) -> list[Kept]:
        """All that was said."""
        past = [item for record in self.past for item in record.items]
        return [*kept_items(past), *self.input]

    def record(self, response: ResponseObject) -> Record:
        """A response to this conversation, as it is kept; each item of the input has an id."""
        input = json.dumps([item.resource() for item in self.input], separators=(",", ":"))
        body = response.model_dump_json()
        return Record(response.id, response.previous_response_id, body.encode(), input.encode())


async def context_of(body: PromptRequest, store: ResponseStore | None) -> Context:
    """Look up what the request refers to. Raises PreviousNotStored or NotStored."""
    input: list[Kept] = []
    for item in body.input:
        if isinstance(item, Reference):
            input.append(await _look_up(item.id, store))
        else:
            input.append(item)
    past: Sequence[Record] = ()
    previous = body.previous_response_id
    if previous is not None:
        if store is None:
            raise previous_not_stored(previous)
        past = await store.chain(previous)
        if past[-1].running:
            raise InvalidRequest(
                f"previous_response_id: response {previous} has not ended yet",
                param="previous_response_id",
            )
    if not input and not past:
        raise InvalidRequest(
            "input: one of input and previous_response_id is required", param="input"
        )
    return Context(past, input)


async def _look_up(id: str, store: ResponseStore | None) -> Kept:
    if store is None:
        raise item_not_stored(id)
    (item,) = kept_items([await store.item(id)])
    return item


async def plan_of(body: PromptRequest, context: Context, worker: Worker, request: Request) -> Plan:
    """How the request is put to the model.

    With `truncation: auto` the oldest exchanges are left out of what does not fit. Raises
    InvalidRequest.
    """
    n_bytes = len(await request.body()) + context.size
    turn = await aside(n_bytes, lambda: _turn(body, context))
    plan = await body.rendered(request, n_bytes, lambda: _plan(turn, worker))
    if body.truncation == "disabled":
        return plan
    return await _fit(turn, plan, worker, body.max_output_tokens)


def _turn(body: PromptRequest, context: Context) -> Turn:
    return Turn(
        messages=to_messages(body.instructions, context.items),
        tools=body.offered,
        tool_choice=body.choice,
        parallel_tool_calls=body.parallel_tool_calls,
        answer=body.answer_grammar,
        variables=body.variables,
        documents=shaped(body.documents),
        template=body.chat_template,
    )


def _plan(turn: Turn, worker: Worker) -> Plan:
    try:
        return plan_for(worker.config, worker.info, turn)
    except InvalidRequest as error:
        if error.param == "messages":
            error.param = "input"
        raise


async def _fit(turn: Turn, plan: Plan, worker: Worker, max_tokens: int | None) -> Plan:
    """The plan of as many exchanges as leave room for an answer, or of as few as can be."""
    n_ctx = worker.info.n_ctx
    limit = n_ctx - min(max_tokens or n_ctx // 4, n_ctx // 2)
    gaps = droppable(turn.messages)
    if not gaps or await count(plan, worker) <= limit:
        return plan

    async def shortened(n: int) -> tuple[Plan, bool]:
        messages = without(turn.messages, gaps[:n])
        plan = await asyncio.to_thread(_plan, replace(turn, messages=messages), worker)
        return plan, await count(plan, worker) <= limit

    low, high = 1, len(gaps)
    plan, _ = await shortened(high)
    while low < high:
        middle = (low + high) // 2
        candidate, fits = await shortened(middle)
        if fits:
            plan, high = candidate, middle
        else:
            low = middle + 1
    return plan


async def count(plan: Plan, worker: Worker) -> int:
    """How many tokens the prompt has."""
    question = Tokenize(plan.prompt.text, literal=plan.prompt.literal)
    return len((await worker.ask(question, Tokenized)).tokens)
