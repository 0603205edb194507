"""From a sound request to the reply to a question: for endpoints that generate nothing."""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from fastapi import Request

from server.api.deps import Services, until_gone
from server.api.envelope import visit_of
from server.api.fields import report_unserved, sort_out
from server.api.keep_alive import read_keep_alive
from server.ipc import Embedded, Question, Ranked
from server.pool.worker import Worker

R = TypeVar("R", Embedded, Ranked)


class Asking(NamedTuple):
    """A request that has found its model."""

    request: Request
    services: Services
    worker: Worker
    headers: Mapping[str, str]
    """Of the response: which fields were ignored."""

    @classmethod
    async def begin(
        cls, request: Request, services: Services, model: str, extras: Mapping[str, object]
    ) -> "Asking":
        """Find the model, loaded if need be. No extra field is served. Raises either's errors."""
        sorted_out = sort_out(extras)
        unserved = (*sorted_out.sampling, *sorted_out.unserved)
        policy = services.config.server.unknown_fields
        headers = report_unserved(unserved, policy, visit_of(request).request_id)
        async with until_gone(request):
            worker = await services.worker(request, model, read_keep_alive(extras))
        return cls(request, services, worker, headers)

    async def ask(self, question: Question, reply: type[R]) -> R:
        """The worker's reply, its tokens counted. Raises what the worker says of the question."""
        async with until_gone(self.request):
            answer = await self.worker.ask(question, reply)
        self.services.metrics.count_tokens(self.worker.model, sum(answer.n_tokens), 0, 0)
        return answer
