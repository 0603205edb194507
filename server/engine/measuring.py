"""The process that measures a model: its speed, and its predictions of a text."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import BinaryIO

import numpy as np

from server.engine import errand, llama
from server.engine.batch import Batch, Tokens
from server.engine.divergence import Rows, Scores
from server.engine.opening import open_model, plan, warm_up
from server.engine_config import EngineConfig
from server.errands import Advance, Measure, Measured
from server.errors import EngineError
from server.ipc import Load

N_DECODE = 32
"""Tokens decoded one by one for the speed."""

N_PREFILL = 3
"""Prompts computed for the speed."""

MIN_TOKENS = 8
"""Of a text that says anything."""


def do(job: Measure, tell: errand.Tell) -> Measured:
    """Measure one model. Raises ModelLoadError or EngineError."""
    with ExitStack() as stack:
        captured = llama.backend_init()
        load = Load(Path(job.path).name, job.path, _settings(job))
        model = stack.enter_context(open_model(load, captured, lambda _: None))
        if not model.generates:
            raise EngineError(f"{job.path}: this model does not predict text")
        pieces = _pieces(job, model)
        config, layout = plan(load.engine, model)
        context = stack.enter_context(llama.Context(model, config, layout.n_ctx, layout.n_cells))
        warm_up(context)
        # Where positions are learned there may be none behind the piece.
        prefill, decode = _speed(context, pieces[0][: context.n_ctx - N_DECODE])
        mode = "wb" if job.reference is None else "rb"
        file = stack.enter_context(Path(job.logits).open(mode))
        scores = _score(job, context, pieces, file, tell)
    perplexity, perplexity_error = scores.perplexity()
    divergence, divergence_error = scores.mean_divergence()
    n_scored = sum(map(_n_rows, pieces))
    return Measured(
        tokens=tuple(np.concatenate(pieces).tolist()),
        n_scored=n_scored,
        perplexity=perplexity,
        perplexity_error=perplexity_error,
        divergence=divergence,
        divergence_error=divergence_error,
        same_best=scores.n_same / n_scored,
        prefill=prefill,
        decode=decode,
    )


def _settings(job: Measure) -> EngineConfig:
    """One slot that holds a piece and what is decoded after it."""
    return EngineConfig(
        n_ctx=job.n_ctx + N_DECODE,
        n_slots=1,
        n_batch=job.n_ctx,
        n_threads=job.n_threads,
    )


def _pieces(job: Measure, model: llama.Model) -> list[Tokens]:
    """The text's tokens in pieces of `n_ctx`, or in a shorter one if there are not as many.

    Raises EngineError where the reference, whose tokens they must be, has others.
    """
    if 0 < model.n_ctx_train < job.n_ctx:
        raise EngineError(
            f"{job.path}: pieces of {job.n_ctx:,} tokens, but it was trained for a context of "
            f"{model.n_ctx_train:,}"
        )
    raw = model.vocabulary
    tokens = raw.tokenize(job.text, add_special=True, parse_special=False)
    if len(tokens) < MIN_TOKENS:
        raise EngineError(f"the text has {len(tokens)} tokens, at least {MIN_TOKENS} are needed")
    n = max(1, len(tokens) // job.n_ctx)
    n = n if job.n_pieces is None else min(n, job.n_pieces)
    pieces = [tokens[i * job.n_ctx : (i + 1) * job.n_ctx].copy() for i in range(n)]
    if raw.adds_bos:
        for piece in pieces:
            piece[0] = raw.bos
    _check(job, pieces, raw.n_tokens)
    return pieces


def _check(job: Measure, pieces: list[Tokens], n_vocab: int) -> None:
    """Raises EngineError where the reference's logits do not fit on the disk, or are not ours."""
    n_bytes = sum(map(_n_rows, pieces)) * n_vocab * np.dtype(np.float32).itemsize
    path = Path(job.logits)
    if job.reference is None:
        free = shutil.disk_usage(path.parent).free
        if n_bytes > free:
            raise EngineError(
                f"the reference's predictions take {n_bytes:,} bytes, {path.parent} has {free:,} "
                "free: use less text, or set TMPDIR to another disk"
            )
        return
    tokens = tuple(np.concatenate(pieces).tolist())
    if job.reference.tokens != tokens or path.stat().st_size != n_bytes:
        raise EngineError(f"{job.path}: its vocabulary is not that of the largest file")


def _n_rows(piece: Tokens) -> int:
    """Predictions that count: those of the second half, which have seen some context."""
    return len(piece) - 1 - len(piece) // 2


def _score(
    job: Measure, context: llama.Context, pieces: list[Tokens], file: BinaryIO, tell: errand.Tell
) -> Scores:
    scores = Scores()
    for done, (logits, came) in enumerate(_predictions(context, pieces), 1):
        if job.reference is None:
            file.write(logits.tobytes())
            theirs = logits
        else:
            theirs = np.fromfile(file, np.float32, logits.size).reshape(logits.shape)
        scores.add(logits, came, theirs)
        tell(Advance(done, len(pieces)))
    return scores


def _predictions(context: llama.Context, pieces: list[Tokens]) -> Iterator[tuple[Rows, Tokens]]:
    """Of each piece: logits, [n_rows, n_vocab], valid until the next, and the tokens that came."""
    batch = Batch(context.n_batch)
    for piece in pieces:
        n = _n_rows(piece)
        context.trim(0, 0)
        batch.clear()
        batch.add(0, piece[:-1], 0, n)
        context.forward(batch)
        yield context.logits(n), piece[-n:]


def _speed(context: llama.Context, piece: Tokens) -> tuple[float, float]:
    """Tokens per second of a prompt and, after it, of one stream; medians."""
    prefill = [_timed(context, piece, 0) for _ in range(N_PREFILL)]
    # Its length counts, what it says does not.
    decode = [_timed(context, piece[:1], len(piece) + i) for i in range(N_DECODE)]
    return len(piece) / median(prefill), 1 / median(decode)


def _timed(context: llama.Context, tokens: Tokens, position: int) -> float:
    """Seconds that the next tokens of a slot take, up to the logits of the last."""
    if position == 0:
        context.trim(0, 0)
    batch = Batch(len(tokens))
    batch.add(0, tokens, position, n_rows=1)
    started = time.perf_counter()
    context.forward(batch)
    context.logits(1)
    return time.perf_counter() - started


if __name__ == "__main__":
    errand.run(Measure, do)
