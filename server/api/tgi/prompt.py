"""The prompt of a request to TGI, cut to what was asked for and checked against the context."""

from server.api.deps import until_gone
from server.api.openai.reply import Job
from server.api.tgi.parameters import TextRequest
from server.errors import ContextLengthExceeded, InvalidRequest
from server.ipc import Prompt, Text, Tokenize, Tokenized

MAX_ADDED = 8
"""Tokens that a text has beyond its bytes, at the very most."""


async def fitted(job: Job, body: TextRequest) -> Prompt:
    """What is put to the engine. Raises InvalidRequest or ContextLengthExceeded.

    The text is only looked into where its tokens must be counted.
    """
    asked = body.parameters
    n_ctx = job.worker.info.n_ctx
    n_answer = asked.max_new_tokens or 1
    if asked.truncate is None and len(body.inputs.encode()) + MAX_ADDED + n_answer <= n_ctx:
        return Text(body.inputs)
    if asked.truncate is not None and asked.truncate >= n_ctx:
        raise InvalidRequest(
            f"parameters.truncate: must be less than {n_ctx}, got {asked.truncate}",
            "parameters.truncate",
        )
    async with until_gone(job.request):
        found = await job.worker.ask(Tokenize(body.inputs), Tokenized)
    tokens = found.tokens
    if asked.truncate is not None:
        tokens = _cut(tokens, asked.truncate, job.worker.info.adds_bos)
    if len(tokens) + n_answer > n_ctx:
        # In TGI's words: clients tell by them that a prompt is too long.
        raise ContextLengthExceeded(
            f"`inputs` tokens + `max_new_tokens` must be <= {n_ctx}. "
            f"Given: {len(tokens)} `inputs` tokens and {asked.limit} `max_new_tokens`",
            "inputs",
        )
    return tokens


def _cut(tokens: tuple[int, ...], n: int, adds_bos: bool) -> tuple[int, ...]:
    """The last `n` tokens; the one that every prompt begins with stays the first."""
    if len(tokens) <= n:
        return tokens
    if not adds_bos or n == 1:
        return tokens[-n:]
    return (tokens[0], *tokens[len(tokens) - n + 1 :])
