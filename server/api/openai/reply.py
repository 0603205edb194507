"""From a sound request to its response. Streamed and whole answers take the same way."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple, Protocol

from fastapi import Request
from starlette.responses import JSONResponse, Response

from server.api.answers import AnswerEvent, Answers
from server.api.deps import Services, until_gone
from server.api.envelope import visit_of
from server.api.errors import Told
from server.api.fields import merge_sampling, report_unserved, sort_out
from server.api.keep_alive import read_keep_alive
from server.api.sse import DONE, EventStream, data_event
from server.errors import InvalidRequest
from server.ipc import GenerateRequest
from server.pool.worker import Worker
from server.sampling import SamplingParams


class Writer(Protocol):
    """How one endpoint writes an answer: in chunks, or whole when the last event has come."""

    def write(self, event: AnswerEvent) -> bytes:
        """What goes out now; often nothing."""
        ...


class Job(NamedTuple):
    """A request that has found its model, with what its extra fields say."""

    request: Request
    services: Services
    worker: Worker
    sampling: SamplingParams
    headers: Mapping[str, str]
    """Of the response: which fields were ignored."""

    @classmethod
    async def begin(
        cls, request: Request, services: Services, model: str, extras: Mapping[str, object]
    ) -> "Job":
        """Find the model, loaded if need be, and sort out the extra fields. Raises their errors."""
        async with until_gone(request):
            worker = await services.worker(request, model, read_keep_alive(extras))
        if not worker.info.generates:
            what = "ranks documents" if worker.info.ranks else "gives embeddings"
            raise InvalidRequest(f"the model {model} {what}, it does not generate text", "model")
        sorted_out = sort_out(extras)
        policy = services.config.server.unknown_fields
        headers = report_unserved(sorted_out.unserved, policy, visit_of(request).request_id)
        sampling = merge_sampling(worker.config.sampling, sorted_out.sampling)
        return cls(request, services, worker, sampling, headers)

    async def reply(
        self,
        requests: Sequence[GenerateRequest],
        n: int,
        writer: Writer,
        stream: bool,
        done: bytes = DONE,
        failure: Callable[[Told], bytes] = data_event,
    ) -> Response:
        """Submit, wait for the verdict on every choice, then stream or collect.

        `requests` are the choices in order, `n` in a row for each prompt. `done` and `failure` are
        how a stream ends.
        """
        visit = visit_of(self.request)
        metrics = self.services.metrics
        with ExitStack() as stack:
            answers = Answers(self.worker, requests, n, metrics, visit.arrived)
            stack.callback(answers.close)
            async with until_gone(self.request):
                await answers.accepted()
            if stream:
                stack.pop_all()
                ping_s = self.services.config.server.ping_s
                written = _written(answers, writer)
                return EventStream(
                    written, answers.close, visit, ping_s, self.headers, done, failure
                )
            async with until_gone(self.request):
                whole = b"".join([part async for part in _written(answers, writer)])
            return Response(whole, headers=self.headers, media_type=JSONResponse.media_type)


async def _written(answers: Answers, writer: Writer) -> AsyncGenerator[bytes]:
    write = writer.write
    async for event in answers.events():
        written = write(event)
        if written:
            yield written


def choices(request: GenerateRequest, n: int) -> list[GenerateRequest]:
    """`n` choices of one prompt, with seeds of their own."""
    seed = request.sampling.seed
    if seed is None:
        return [request] * n
    return [
        replace(request, sampling=request.sampling.model_copy(update={"seed": seed + i}))
        for i in range(n)
    ]
