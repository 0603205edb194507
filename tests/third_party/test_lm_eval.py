"""lm-evaluation-harness, by its three ways to ask us, held against llama.cpp asked directly."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import MODEL
from tests.third_party.forward import Forward
from tests.third_party.running import HERE, python, run

PER_TOKEN = 1e-3
"""How far two ways through the same model may be apart."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@pytest.fixture(scope="module")
def forward(model_path: Path) -> Iterator[Forward]:
    """The model, without any of our code."""
    with Forward(model_path) as forward:
        yield forward


class Harness:
    """Runs the harness; what it writes is in `folder`."""

    def __init__(self, folder: Path, environ: Mapping[str, str]):
        self._folder = folder
        self._environ = {**environ, **OFFLINE}

    def samples(
        self, model: str, arguments: Mapping[str, object], task: str, batch_size: int = 1
    ) -> list[Any]:
        """What `model` said in each document of `task`."""
        given = ",".join(f"{name}={value}" for name, value in arguments.items())
        command = [python(), "-m", "lm_eval", "run", "--model", model, "--model_args", given]
        command += ["--tasks", task, "--include_path", ".", "--output_path", self._folder / "out"]
        command += ["--log_samples", "--batch_size", str(batch_size)]
        if "chat" in model:
            command.append("--apply_chat_template")
        run(command, self._folder, self._environ, cwd=HERE / "tasks")
        (file,) = (self._folder / "out").rglob("samples_*.jsonl")
        lines = file.read_text(encoding="utf-8").splitlines()
        assert len(lines) == len((HERE / "tasks" / "questions.jsonl").read_bytes().splitlines())
        return [json.loads(line) for line in lines]


@pytest.fixture
def harness(tmp_path: Path, environ: Mapping[str, str]) -> Harness:
    """With an empty folder of its own."""
    return Harness(tmp_path, environ)


def completions(url: str, **more: object) -> Mapping[str, object]:
    """The arguments of local-completions."""
    asked = {"base_url": f"{url}/v1/completions", "model": MODEL, "max_retries": 1}
    return {**asked, "max_length": 1024, **more}


def hold_choices(samples: Sequence[Any], forward: Forward) -> None:
    """Each choice's likelihood, and whether it is the likeliest text, as llama.cpp says."""
    n_greedy = 0
    for sample in samples:
        pairs = [argument.values() for argument in arguments_of(sample)]
        assert len(pairs) == 3
        for (context, continuation), said in zip(pairs, sample["filtered_resps"], strict=True):
            wanted = forward.continuation(context, continuation)
            likelihood, is_greedy = float(said[0]), said[1] in (True, "True")
            assert likelihood == pytest.approx(wanted.sum, abs=PER_TOKEN * wanted.n_tokens)
            assert is_greedy == wanted.is_greedy
            n_greedy += is_greedy
    assert n_greedy, "no choice is what the model would say: the comparison says nothing"


def arguments_of(sample: Any) -> list[dict[str, str]]:
    """What the model was asked, in order."""
    given: Mapping[str, dict[str, str]] = sample["arguments"]
    return [given[name] for name in sorted(given)]


def test_likelihoods_by_token_ids(harness: Harness, url: str, forward: Forward) -> None:
    """With the server's own tokenizer, which the harness finds by itself, four at a time."""
    arguments = completions(url, num_concurrent=2)
    samples = harness.samples("local-completions", arguments, "corral_choice", batch_size=4)
    hold_choices(samples, forward)


def test_likelihoods_by_texts(harness: Harness, url: str, forward: Forward) -> None:
    arguments = completions(url, tokenizer_backend="remote", tokenized_requests=False)
    hold_choices(harness.samples("local-completions", arguments, "corral_choice"), forward)


def test_likelihoods_of_the_gguf_model(harness: Harness, url: str, forward: Forward) -> None:
    hold_choices(harness.samples("gguf", {"base_url": url}, "corral_choice"), forward)


def test_perplexity(harness: Harness, url: str, forward: Forward) -> None:
    arguments = completions(url, tokenizer_backend="remote")
    for sample in harness.samples("local-completions", arguments, "corral_perplexity"):
        (asked,) = arguments_of(sample)
        (text,) = asked.values()
        wanted = forward.text(text)
        (said,) = sample["filtered_resps"]
        assert float(said) == pytest.approx(wanted.sum, abs=PER_TOKEN * wanted.n_tokens)


def test_answers(harness: Harness, url: str, forward: Forward) -> None:
    arguments = completions(url, tokenizer_backend="remote")
    for sample in harness.samples("local-completions", arguments, "corral_answer"):
        prompt = arguments_of(sample)[0]["arg_0"]
        wanted = forward.greedy(prompt, 8).partition("\n")[0]
        assert sample["filtered_resps"] == [wanted]


def test_answers_of_the_gguf_model(harness: Harness, url: str, forward: Forward) -> None:
    for sample in harness.samples("gguf", {"base_url": url}, "corral_answer"):
        prompt = arguments_of(sample)[0]["arg_0"]
        # It asks for no length, and gets 16 tokens.
        wanted = forward.greedy(prompt, 16).partition("\n")[0]
        assert sample["filtered_resps"] == [wanted.strip()]


def test_chat_answers(harness: Harness, url: str) -> None:
    arguments = {"base_url": f"{url}/v1/chat/completions", "model": MODEL, "max_retries": 1}
    for sample in harness.samples("local-chat-completions", arguments, "corral_answer"):
        (said,) = sample["filtered_resps"]
        assert said
        assert "\n" not in said
