"""A model's figures on a short text, against the same computed token by token."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np
import pytest

from server.engine import llama, measuring
from server.engine.batch import Batch
from server.engine.llama import Context, Model, backend
from server.engine_config import EngineConfig
from server.errands import Advance, Measure
from server.errors import EngineError
from tests import bert

TEXT = "A horse is a horse, of course, and nobody can talk to a horse, unless the horse is famous."


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """llama.cpp must not call a log that is gone."""
    yield
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


@pytest.fixture
def job(model_path: Path, tmp_path: Path) -> Measure:
    return Measure(str(model_path), TEXT, 10, None, 1, str(tmp_path / "logits"), None)


def ignore(_: Advance) -> None: ...


def by_hand(path: Path, n_ctx: int) -> float:
    """Perplexity of the second halves of the pieces, each token forwarded alone."""
    config = EngineConfig(n_ctx=64, n_slots=1, n_batch=8, n_threads=1, n_gpu_layers=0)
    surprise: list[float] = []
    log = llama.backend_init()
    with Model(str(path), config, 0, log, lambda _: None) as model:
        raw = model.vocabulary
        tokens = raw.tokenize(TEXT, add_special=True, parse_special=False).tolist()
        for start in range(0, len(tokens) // n_ctx * n_ctx, n_ctx):
            piece = tokens[start : start + n_ctx]
            if raw.adds_bos:
                piece[0] = raw.bos
            with Context(model, config, 64, None) as context:
                for i in range(n_ctx - 1):
                    batch = Batch(1)
                    batch.add(0, piece[i : i + 1], i, n_rows=1)
                    context.forward(batch)
                    logits = context.logits(1)[0].astype(np.longdouble)
                    if i >= n_ctx // 2:
                        total = np.log(np.exp(logits).sum())
                        surprise.append(float(total - logits[piece[i + 1]]))
    return exp(sum(surprise) / len(surprise))


def test_perplexity_is_what_it_is_by_hand(job: Measure, model_path: Path) -> None:
    steps: list[Advance] = []
    found = measuring.do(job, steps.append)
    assert steps == [Advance(1, 2), Advance(2, 2)]
    assert (len(found.tokens), found.n_scored) == (20, 8)
    # Kernels for one row and for many round differently, those for AMX most of all.
    assert found.perplexity == pytest.approx(by_hand(model_path, 10), rel=0.06)
    assert found.perplexity_error > 0
    assert (found.divergence, found.same_best) == (0, 1)
    assert found.prefill > 0
    assert found.decode > 0


def test_a_model_does_not_diverge_from_itself(job: Measure) -> None:
    reference = measuring.do(job, ignore)
    again = measuring.do(replace(job, reference=reference), ignore)
    assert (again.divergence, again.divergence_error, again.same_best) == (0, 0, 1)
    assert (again.tokens, again.perplexity) == (reference.tokens, reference.perplexity)


def test_it_diverges_from_other_predictions(job: Measure) -> None:
    reference = measuring.do(job, ignore)
    path = Path(job.logits)
    logits = np.fromfile(path, np.float32).reshape(reference.n_scored, -1)
    (logits / 2).tofile(path)
    softer = measuring.do(replace(job, reference=reference), ignore)
    assert softer.divergence > 0.1
    assert (softer.same_best, softer.perplexity) == (1, reference.perplexity)


def test_another_vocabulary_is_refused(job: Measure) -> None:
    reference = measuring.do(job, ignore)
    other = replace(reference, tokens=reference.tokens[::-1])
    with pytest.raises(EngineError, match="its vocabulary is not that of the largest file"):
        measuring.do(replace(job, reference=other), ignore)
    Path(job.logits).write_bytes(b"short")
    with pytest.raises(EngineError, match="its vocabulary is not that of the largest file"):
        measuring.do(replace(job, reference=reference), ignore)


def test_pieces_are_as_many_as_asked_or_one_short_one(job: Measure) -> None:
    assert len(measuring.do(replace(job, n_pieces=1), ignore).tokens) == 10
    whole = measuring.do(replace(job, n_ctx=64), ignore)
    assert 20 <= len(whole.tokens) < 30
    assert whole.n_scored == len(whole.tokens) - 1 - len(whole.tokens) // 2


def test_a_disk_too_small_is_told(job: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    def usage(_: object) -> type[Usage]:
        return Usage

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(EngineError, match=r"take 1,572,864 bytes, .* has 1,000 free"):
        measuring.do(job, ignore)


def test_a_model_that_predicts_no_text_is_refused(job: Measure, tmp_path: Path) -> None:
    path = tmp_path / "bert.gguf"
    bert.tiny().write(path)
    with pytest.raises(EngineError, match=r"bert.gguf: this model does not predict text"):
        measuring.do(replace(job, path=str(path)), ignore)
