"""A real embedding model behind the real server, against its published weights and scores."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from openai import OpenAI

from tests.bert import Bert
from tests.conftest import ROOT
from tests.e2e.asking import sdk_at
from tests.e2e.process import N_THREADS, serving, write_config
from tests.minilm import minilm

ARCHIVE = ROOT / "models" / "all-MiniLM-L6-v2.zip"
ID = "all-minilm-l6-v2"

IDS = {
    "A man is eating food.": (101, 1037, 2158, 2003, 5983, 2833, 1012, 102),
    "A man is eating a piece of bread.": (
        *(101, 1037, 2158, 2003, 5983, 1037, 3538, 1997, 7852, 1012, 102),
    ),
    "The girl is carrying a baby.": (101, 1996, 2611, 2003, 4755, 1037, 3336, 1012, 102),
}
"""As the model's own tokenizer has them."""


@pytest.fixture(scope="module")
def reference() -> Bert:
    if not ARCHIVE.is_file():
        pytest.fail(f"{ARCHIVE} is missing; `make test` fetches it")
    return minilm(ARCHIVE)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, reference: Bert) -> Iterator[OpenAI]:
    """The SDK for a server of this model."""
    folder: Path = tmp_path_factory.mktemp("minilm")
    reference.write(folder / "minilm.gguf")
    models = {ID: {"path": "minilm.gguf", "engine": {"n_threads": N_THREADS}}}
    with serving(write_config(folder, models)) as corral:
        url = corral.wait_until_it_listens()
        with sdk_at(url) as client:
            yield client


def test_vectors_are_those_of_the_weights(real: OpenAI, reference: Bert) -> None:
    answer = real.embeddings.create(model=ID, input=[*IDS])
    assert answer.usage.prompt_tokens == sum(map(len, IDS.values()))
    found = [np.array(item.embedding, np.float32) for item in answer.data]
    for vector, ids in zip(found, IDS.values(), strict=True):
        np.testing.assert_allclose(vector, reference.vector(ids), atol=1e-3)
    # As its authors tell.
    assert float(found[0] @ found[1]) == pytest.approx(0.7553, abs=1e-3)
    assert float(found[0] @ found[2]) == pytest.approx(-0.1050, abs=1e-3)


def test_texts_of_all_lengths_in_one_request(real: OpenAI, reference: Bert) -> None:
    word = IDS["A man is eating food."][2]
    inputs = [[101, *[word] * n, 102] for n in (1, 510, 40, 300, 7, 128)]
    answer = real.embeddings.create(model=ID, input=inputs)
    for item, ids in zip(answer.data, inputs, strict=True):
        np.testing.assert_allclose(item.embedding, reference.vector(ids), atol=1e-3)
