"""Embedding contexts over real files: BERTs whose vectors numpy knows, and the demo model."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from server.engine import llama
from server.engine.batch import Batch
from server.engine.embedder import Embedder
from server.engine.job import Job, Limits
from server.engine.llama import EmbeddingContext, Log, Model, Vectors, backend
from server.engine.llama.backend import C
from server.engine.vocabulary import Vocabulary
from server.engine_config import EngineConfig
from server.errors import EngineError
from server.ipc import Answer, Embed, Embedded, Event
from tests import bert

CONFIG = EngineConfig(n_ctx=512, n_ubatch=64, n_threads=1, flash_attn="off", n_gpu_layers=0)
TEXTS = ("the cat sat on the mat", "what does the cat eat", "fish", "a b c d e f g h i j k l m n")


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    yield llama.backend_init()
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


@pytest.fixture(scope="module")
def demo(model_path: Path, log: Log) -> Iterator[Model]:
    with Model(str(model_path), CONFIG, 0, log, lambda _: None) as model:
        yield model


def opened(path: Path, log: Log, config: EngineConfig = CONFIG) -> Model:
    return Model(str(path), config, 0, log, lambda _: None)


def rows(context: EmbeddingContext, *texts: list[int]) -> list[Vectors]:
    """The tokens' vectors of some texts in one forward."""
    batch = Batch(context.n_batch)
    for slot, tokens in enumerate(texts):
        batch.add(slot, tokens, 0, n_rows=len(tokens))
    context.forward(batch)
    found = context.rows(batch.n_tokens).copy()
    for slot in range(len(texts)):
        context.drop(slot)
    return np.split(found, np.cumsum([len(tokens) for tokens in texts])[:-1])


def embed(model: Model, config: EngineConfig, *inputs: str | tuple[int, ...]) -> list[Vectors]:
    """Vectors by way of the embedder."""
    events: list[Event] = []
    n_ctx = config.n_ctx or 512
    with Embedder(
        lambda n: EmbeddingContext(model, config, n),
        model.pooling,
        n_ctx,
        64,
        100,
        9,
        events.extend,
    ) as embedder:
        limits = Limits(model.embeds, model.ranks, n_ctx)
        embedder.add(Job(1, Embed(inputs), Vocabulary(model.vocabulary), limits))
        while not embedder.idle:
            embedder.step(busy=False)
    (answer,) = events
    assert isinstance(answer, Answer) and isinstance(answer.reply, Embedded), answer
    return [np.frombuffer(raw, "<f4") for raw in answer.reply.vectors]


def test_what_the_files_say(demo: Model, log: Log, tmp_path: Path) -> None:
    tiny = bert.tiny()
    told: list[tuple[str, bool, bool, bool]] = []
    for pooling in ("mean", "cls", "rank", "none"):
        with opened(tiny.with_pooling(pooling).write(tmp_path / pooling), log) as model:
            told.append((model.pooling, model.generates, model.embeds, model.ranks))
            assert (model.n_embd, model.is_causal) == (32, False)
    assert told == [
        ("mean", False, True, False),
        ("cls", False, True, False),
        ("rank", False, False, True),
        ("mean", False, True, False),
    ]
    assert (demo.pooling, demo.generates, demo.embeds, demo.ranks) == ("mean", True, True, False)
    assert (demo.n_embd, demo.is_causal, demo.rerank_template) == (576, True, None)
    config = CONFIG.model_copy(update={"pooling": "last"})
    with opened(tmp_path / "rank", log, config) as model:
        assert (model.pooling, model.embeds, model.ranks) == ("last", True, False)


@pytest.mark.parametrize(
    ("function", "answer"), [("llama_model_has_decoder", False), ("llama_model_is_diffusion", True)]
)
def test_models_that_do_not_generate(
    function: str, answer: bool, model_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(_: Any) -> bool:
        return answer

    monkeypatch.setattr(backend.C, function, say)
    with opened(model_path, log) as model:
        assert (model.is_causal, model.generates, model.embeds) == (False, False, True)


def test_an_architecture_that_says_nothing_of_its_attention(
    model_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.engine.llama.model.BIDIRECTIONAL", {"llama"})
    with opened(model_path, log) as model:
        assert not model.is_causal


def test_the_template_for_pairs(log: Log, tmp_path: Path) -> None:
    path = bert.tiny().with_pooling("rank").write(tmp_path / "r", "{query}|{document}")
    with opened(path, log) as model:
        assert model.rerank_template == "{query}|{document}"


@pytest.mark.parametrize("flash_attn", ["off", "on"])
def test_rows_are_those_of_the_reference(flash_attn: str, log: Log, tmp_path: Path) -> None:
    tiny = bert.tiny()
    config = CONFIG.model_copy(update={"flash_attn": flash_attn})
    with (
        opened(tiny.write(tmp_path / "tiny"), log) as model,
        EmbeddingContext(model, config, 64) as context,
    ):
        assert not context.can_cut
        ids = [bert.enclosed(text) for text in TEXTS]
        assert model.vocabulary.tokenize(TEXTS[0], True, False).tolist() == ids[0]
        for found, text in zip(rows(context, *ids), ids, strict=True):
            # llama.cpp looks GELU up in a table of half precision.
            np.testing.assert_allclose(found, tiny.rows(text), atol=2e-2)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_the_reference(
    pooling: bert.Pooling, log: Log, tmp_path: Path
) -> None:
    tiny = bert.tiny(seed=3).with_pooling(pooling)
    with opened(tiny.write(tmp_path / "tiny"), log) as model:
        tokens = [model.vocabulary.tokenize(text, True, False).tolist() for text in TEXTS]
        config = CONFIG.model_copy(update={"n_ctx": 64})
        for found, ids in zip(embed(model, config, *TEXTS), tokens, strict=True):
            expected = tiny.vector(ids)
            np.testing.assert_allclose(found, expected, atol=1e-3)
            assert float(found @ expected) > 0.9999


def test_scores_are_those_of_the_reference(log: Log, tmp_path: Path) -> None:
    tiny = bert.tiny(seed=5).with_pooling("rank")
    pairs = [bert.enclosed("what does the cat eat", text) for text in ("fish", "the mat", "paris")]
    with (
        opened(tiny.write(tmp_path / "rank"), log) as model,
        EmbeddingContext(model, CONFIG, 64) as context,
    ):
        batch = Batch(context.n_batch)
        for slot, pair in enumerate(pairs):
            batch.add(slot, pair, 0, n_rows=len(pair))
        context.forward(batch)
        for slot, pair in enumerate(pairs):
            (score,) = context.scores(slot)
            assert score == pytest.approx(tiny.score(pair), abs=5e-3)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_the_demo_model_embeds_as_the_class_of_llama_cpp_does(
    pooling: Literal["mean", "last"], model_path: Path, log: Log
) -> None:
    """Its class `Llama` pools inside llama.cpp; here rows are pooled, over cuts too."""
    texts = ["The cat sat on the mat.", "Paris is a city. " * 24, "x"]
    reference = _by_the_class(model_path, pooling, texts)
    cut = CONFIG.model_copy(update={"pooling": pooling})
    whole = cut.model_copy(update={"n_ubatch": 512})
    with opened(model_path, log, cut) as model:
        ids = [model.vocabulary.tokenize(text, True, False) for text in texts]
        assert [len(i) > 64 for i in ids] == [False, True, False]
        for config, near in ((whole, 0.9995), (cut, 0.998)):
            # Activations are rounded by the tile, and a cut makes other tiles.
            for found, expected in zip(embed(model, config, *texts), reference, strict=True):
                assert float(found @ expected) > near


def _by_the_class(path: Path, pooling: str, texts: list[str]) -> list[Vectors]:
    program = (
        "import json, sys, llama_cpp\n"
        "model = llama_cpp.Llama(sys.argv[1], embedding=True, n_ctx=512, n_batch=512, "
        "n_ubatch=512, n_threads=1, n_threads_batch=1, n_gpu_layers=0, verbose=False, "
        "flash_attn_type=0, pooling_type=getattr(llama_cpp, sys.argv[2]))\n"
        "texts = json.loads(sys.argv[3])\n"
        "print(json.dumps([model.embed(text, normalize=True) for text in texts]))\n"
    )
    name = f"LLAMA_POOLING_TYPE_{pooling.upper()}"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), name, json.dumps(texts)],
        capture_output=True,
        check=True,
        text=True,
    )
    return [np.array(vector, np.float32) for vector in json.loads(done.stdout)]


def test_sizes(demo: Model) -> None:
    with EmbeddingContext(demo, CONFIG, 100) as context:
        assert context.can_cut
        assert (context.n_batch, context.n_cells) == (64, 256)
    wide = CONFIG.model_copy(update={"n_ubatch": 2048})
    with EmbeddingContext(demo, wide, 100) as context:
        assert context.n_batch == 682, "logits of more tokens take more than 128 MiB"
        context.close()


def test_no_context(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engine.llama.embedding.N_SLOTS", 300)
    with pytest.raises(EngineError, match=r"no context of 256 cells: .*n_seq_max must be <= 256"):
        EmbeddingContext(demo, CONFIG, 64)


def test_a_forward_that_fails(demo: Model) -> None:
    with EmbeddingContext(demo, CONFIG, 64) as context:
        batch = Batch(context.n_batch)
        batch.add(0, [demo.vocabulary.n_tokens], 0, n_rows=1)
        with pytest.raises(EngineError, match="llama_decode returned -1 for 1 tokens"):
            context.forward(batch)
        assert len(rows(context, [1, 2, 3])[0]) == 3


def test_the_number_of_threads_changes(demo: Model) -> None:
    with EmbeddingContext(demo, CONFIG, 100) as context:
        context.use_threads(2)
        assert C.llama_n_threads(context.pointer) == 2
        assert C.llama_n_threads_batch(context.pointer) == 2
