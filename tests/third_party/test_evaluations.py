"""`corral eval` and its tasks: with the real harness, the real model, and a scripted judge."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commands.http_server import Asked, Said, answering
from tests.e2e.asking import MODEL
from tests.e2e.process import ANSWER_S, N_THREADS, ROOT, eventually
from tests.third_party.forward import Forward
from tests.third_party.recorder import recording
from tests.third_party.running import python, run

EVALS = ROOT / "evals"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
PER_TOKEN = 1e-3
"""How far two ways through the same model may be apart."""

N_QUESTIONS = 2


def environment(home: Path, interpreter: Path | None = None) -> dict[str, str]:
    ours = {
        "CORRAL_EVAL_PYTHON": str(interpreter or python()),
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
    }
    return {**os.environ, **OFFLINE, **ours}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "server", "eval", *map(str, arguments)]


def corral_eval(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        check=False,
    )


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON of a command that must succeed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def hold_completions(bodies: Sequence[Mapping[str, Any]]) -> None:
    """The model card's settings, and five examples before the question, as text."""
    assert len(bodies) == N_QUESTIONS
    for body in bodies:
        assert (body["model"], body["temperature"], body["max_tokens"]) == (MODEL, 0, 2048)
        assert "Question:" in body["stop"]
        assert re.findall(r"^Question: ", body["prompt"], re.MULTILINE) == ["Question: "] * 6
        assert body["prompt"].count("\n#### ") == 5
        assert body["prompt"].endswith("\nAnswer:")


def hold_chats(bodies: Sequence[Mapping[str, Any]]) -> None:
    """The same, as conversations."""
    assert len(bodies) == N_QUESTIONS
    for body in bodies:
        assert (body["model"], body["temperature"], body["max_tokens"]) == (MODEL, 0, 2048)
        assert body["stop"][0] == "Question:"
        roles = [message["role"] for message in body["messages"]]
        assert roles == ["user", "assistant"] * 5 + ["user"]
        assert all("\n#### " in message["content"] for message in body["messages"][1::2])


@pytest.mark.parametrize("chat", [False, True])
def test_the_harness_itself_runs_gsm8k(
    url: str, environ: Mapping[str, str], tmp_path: Path, chat: bool
) -> None:
    path = "/v1/chat/completions" if chat else "/v1/completions"
    with recording(url) as recorder:
        given = f"base_url={recorder.url}{path},model={MODEL},max_retries=1"
        kind = ("local-chat-completions",) if chat else ("local-completions",)
        options = ("--apply_chat_template",) if chat else ()
        # Tokens would be cut where the context has no room for 2,048 more.
        given += "" if chat else ",tokenizer_backend=remote,tokenized_requests=False"
        asked = ["-m", "lm_eval", "run", "--model", *kind, "--model_args", given, *options]
        asked += ["--tasks", "gsm8k_small", "--include_path", ".", "--limit", str(N_QUESTIONS)]
        shown = run([python(), *asked], tmp_path, {**environ, **OFFLINE}, cwd=EVALS)
    hold = hold_chats if chat else hold_completions
    hold(recorder.bodies(path))
    for name in ("strict-match", "flexible-extract"):
        assert re.search(rf"{name}\s*\|\s*5\|exact_match", shown), shown


def test_gsm8k(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with recording(url) as recorder:
        options = ("--model", MODEL, "--url", recorder.url, "--limit", N_QUESTIONS)
        done = corral_eval(tmp_path, "gsm8k_small", *options, "--output", out, "--json")
    rows = printed(done)
    hold_completions(recorder.bodies("/v1/completions"))
    assert [(row["filter"], row["n"], row["n_shot"]) for row in rows] == [
        ("strict-match", N_QUESTIONS, 5),
        ("flexible-extract", N_QUESTIONS, 5),
    ]
    assert json.loads((out / "results.json").read_text()) == rows
    samples = lines(out / "samples_gsm8k_small.jsonl")
    assert len(samples) == 2 * N_QUESTIONS
    assert all(sample["resps"][0][0] for sample in samples)


def test_gsm8k_in_chats_on_data_of_ones_own(url: str, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    question = {"question": "What is 2 plus 2?", "answer": "2+2=4\n#### 4"}
    data.write_text(json.dumps(question) + "\n" + json.dumps(question))
    with recording(url) as recorder:
        options = ("--model", MODEL, "--url", recorder.url, "--data", data, "--chat")
        done = corral_eval(tmp_path, "gsm8k_card", *options, "--max-tokens", 40)
    assert done.returncode == 0, done.stderr
    bodies = recorder.bodies("/v1/chat/completions")
    assert [body["max_tokens"] for body in bodies] == [40, 40]
    assert all("2 plus 2" in body["messages"][-1]["content"] for body in bodies)
    assert re.search(
        r"gsm8k_card +exact_match +strict-match +\d\.\d{4} +± \d\.\d{4} +5 +2", done.stdout
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """For a server that the command starts: it computes as llama.cpp does here."""
    exact = {"flash_attn": "off", "use_extra_bufts": False}
    engine = {"n_ctx": 1024, "n_threads": N_THREADS, **exact}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"server": {"port": 0}, "found": {"engine": engine}}))
    return path


def test_multiple_choice_on_a_server_of_its_own(
    config: Path, model_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--model", model_path, "--limit", N_QUESTIONS, "--config", config)
    done = corral_eval(tmp_path, "truthful_small", *options, "--output", out, "--json")
    mc1, mc2 = printed(done)
    with Forward(model_path) as forward:
        firsts, shares = list[float](), list[float]()
        for name, figures in (("mc1", firsts), ("mc2", shares)):
            for sample in lines(out / f"samples_truthful_small_{name}.jsonl"):
                logs = hold_choices(sample, forward)
                if name == "mc1":
                    figures.append(float(max(logs) == logs[0]))
                else:
                    labels = sample["doc"]["mc2_targets"]["labels"]
                    chances = [math.exp(log) for log in logs]
                    true = sum(
                        chance for chance, label in zip(chances, labels, strict=True) if label
                    )
                    figures.append(true / sum(chances))
    assert len(firsts) == len(shares) == N_QUESTIONS
    assert mc1["value"] == pytest.approx(sum(firsts) / N_QUESTIONS)
    assert mc2["value"] == pytest.approx(sum(shares) / N_QUESTIONS, abs=0.01)
    assert sum(shares) > 0
    assert processes_of(tmp_path) == []


def hold_choices(sample: Any, forward: Forward) -> list[float]:
    """How likely llama.cpp finds each choice, which is what was found."""
    logs: list[float] = []
    for (context, continuation), said in zip(
        sample["arguments"], sample["filtered_resps"], strict=True
    ):
        wanted = forward.continuation(context, continuation)
        assert float(said[0]) == pytest.approx(wanted.sum, abs=PER_TOKEN * wanted.n_tokens)
        logs.append(wanted.sum)
    return logs


def processes_of(folder: Path) -> list[psutil.Process]:
    """Those of the harness and of servers that run for whoever works in `folder`."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(folder):
                found.append(process)
        except psutil.Error:
            pass
    return found


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_a_signal_ends_all(
    config: Path, model_path: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """The command itself, a harness that never ends, the server and its worker."""
    endless = tmp_path / "python"
    endless.write_text('#!/bin/sh\nread order\necho {}\nread place\n: > "$HOME/asked"\nread more\n')
    endless.chmod(0o755)
    options = ("--model", model_path, "--config", config)
    with subprocess.Popen(
        command("gsm8k_small", *options),
        cwd=tmp_path,
        env=environment(tmp_path, endless),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually((tmp_path / "asked").is_file, "the harness has its order")
            assert len(processes_of(tmp_path)) >= 4
            process.send_signal(number)
            _, said = process.communicate(timeout=ANSWER_S)
        finally:
            process.kill()
    assert process.returncode == status
    assert "Traceback" not in said
    assert said == ("corral: stopped\n" if number == signal.SIGINT else "")
    eventually(lambda: processes_of(tmp_path) == [], "all have ended")


def test_a_task_that_nobody_knows(tmp_path: Path) -> None:
    done = corral_eval(tmp_path, "gsm8k_smal", "--model", "m")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("corral: there is no task 'gsm8k_smal'; near: gsm8k_small, ")


def judge(asked: Asked) -> Said:
    """7 for first answers, 9 for second ones; of math it says nothing that can be read."""
    (message,) = [m for m in asked.body["messages"] if m["role"] == "user"]
    text = message["content"]
    rating = "I cannot say." if "perimeter" in text else "So. Rating: [[7]]"
    if text.count("<user>") == 2 and "perimeter" not in text:
        rating = "Better. Rating: [[9]]"
    return Said(200, {"choices": [{"message": {"content": rating}}]})


def test_mt_bench(url: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with answering(judge) as listening, recording(url) as recorder:
        options = ("--model", MODEL, "--url", recorder.url, "--limit", 4, "--output", out)
        judging = ("--judge", "j", "--judge-url", f"{listening.url}/v1", "--judge-key", "k")
        done = corral_eval(tmp_path, "mt-bench", *options, *judging)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["Category", "Turn", "1", "Turn", "2", "Mean", "Rated", "Unrated"]
    assert rows[1:] == [
        *(
            [name, "7.00", "9.00", "8.00", "2", "0"]
            for name in ("writing", "roleplay", "reasoning")
        ),
        ["math", "-", "-", "-", "0", "2"],
        ["all", "7.00", "9.00", "8.00", "6", "2"],
    ]
    assert "no rating can be read: 2 of 8 judgements" in done.stderr
    asked = recorder.bodies("/v1/chat/completions")
    assert sorted((len(b["messages"]), b["temperature"], b["max_tokens"]) for b in asked) == [
        *[(1, 0, 1024)] * 2, *[(1, 0.7, 1024)] * 2, *[(3, 0, 1024)] * 2, *[(3, 0.7, 1024)] * 2,
    ]  # fmt: skip
    assert all(asked.headers["authorization"] == "Bearer k" for asked in listening.asked)
    answers, judgements = lines(out / "answers.jsonl"), lines(out / "judgements.jsonl")
    assert len(answers) == len(judgements) == 8
    assert all(answer["answer"] for answer in answers)
    assert [it["rating"] for it in judgements].count(None) == 2


def test_a_corral_that_judges_is_held_to_the_form(url: str, tmp_path: Path) -> None:
    options = ("--model", MODEL, "--url", url, "--limit", 1, "--max-tokens", 16)
    judging = ("--judge", MODEL, "--judge-schema")
    writing, everything = printed(corral_eval(tmp_path, "mt-bench", *options, *judging, "--json"))
    assert (writing["n_rated"], writing["n_unrated"]) == (2, 0)
    assert 1 <= everything["mean"] <= 10
