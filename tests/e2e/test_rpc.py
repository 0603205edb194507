"""Models whose layers lie with an RPC server: what that takes here and there, and who has it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.gguf import read_header
from tests.e2e.process import ANSWER_S, N_THREADS, Corral, eventually, serving
from tests.e2e.wire import error_of
from tests.engine.lenders import Lender, lending, needs_rpc

pytestmark = needs_rpc

Json = dict[str, Any]

ENGINE: Json = {
    "n_ctx": 512,
    "n_slots": 2,
    "n_threads": N_THREADS,
    "prefix_cache": 0,
    "flash_attn": "off",
    "use_extra_bufts": False,
}
"""Computed alike here and there: a server repacks nothing."""


FAR, AWAY, NEAR = "far", "away", "near"


@dataclass
class Ranch:
    """A server, and an RPC server that `far` and `away` name, each in its own way."""

    corral: Corral
    http: httpx.Client
    lender: Lender
    path: Path
    content: Json

    def room(self, **pool: object) -> None:
        """How memory is shared from now on."""
        self.path.write_text(json.dumps({**self.content, "pool": pool}))
        assert self.http.post("/admin/reload").is_success

    def ask(self, model: str) -> httpx.Response:
        body = {"model": model, "prompt": "One, two, three,", "max_tokens": 8, "temperature": 0}
        return self.http.post("/v1/completions", json=body)

    def say(self, model: str) -> str:
        answer = self.ask(model)
        assert answer.is_success, answer.text
        return answer.json()["choices"][0]["text"]

    def states(self) -> dict[str, Json]:
        return {model["id"]: model for model in self.http.get("/admin/models").json()["data"]}

    def ready(self) -> set[str]:
        return {id for id, model in self.states().items() if model["state"] == "ready"}

    def plan(self, model: str) -> httpx.Response:
        return self.http.post("/admin/plan", json={"model": model})

    def unload(self) -> None:
        for model in self.ready():
            assert self.http.post("/admin/models/unload", json={"model": model}).is_success


@pytest.fixture(scope="module")
def ranch(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Ranch]:
    folder = tmp_path_factory.mktemp("ranch")
    with lending(1) as (lender,):
        spellings = {FAR: lender.endpoint, AWAY: f"localhost:{lender.port}"}
        models: Json = {
            id: {"path": str(model_path), "engine": {**ENGINE, "rpc_servers": [spelling]}}
            for id, spelling in spellings.items()
        }
        models[NEAR] = {"path": str(model_path), "engine": ENGINE}
        config = folder / "config.yaml"
        content = {"models": models, "hf_cache": "off"}
        config.write_text(json.dumps(content))
        with serving(config, env={"CORRAL_CACHE": str(folder / "cache")}) as corral:
            url = corral.wait_until_it_listens()
            with httpx.Client(base_url=url, timeout=ANSWER_S) as http:
                yield Ranch(corral, http, lender, config, content)


def test_a_plan_before_and_while_the_server_is_used(ranch: Ranch) -> None:
    ranch.unload()
    before = ranch.plan(FAR).json()
    assert before["devices"] == [{"name": "RPC0", "server": ranch.lender.endpoint}]
    assert before["auto"]["n_gpu_layers"] == 31 and before["auto"]["gpus"][0] > 0
    assert ranch.say(FAR)
    # It has a client, and is not asked again.
    while_used = ranch.plan(FAR).json()
    assert while_used["devices"] == before["devices"]
    assert while_used["auto"]["gpus"] == before["auto"]["gpus"]
    assert ranch.plan(NEAR).json()["devices"] == []


def test_layers_that_lie_there_take_no_memory_here(ranch: Ranch, model_path: Path) -> None:
    weights = read_header(model_path).weights
    assert ranch.say(FAR) == ranch.say(NEAR)
    states = ranch.states()
    far, near = states[FAR], states[NEAR]
    assert near["memory"]["ram"] - far["memory"]["ram"] > 0.7 * weights
    assert far["lent"].keys() == {ranch.lender.endpoint} and near["lent"] == {}
    assert far["lent"][ranch.lender.endpoint] > weights
    for model in (far, near):
        assert model["resident"] == pytest.approx(model["memory"]["ram"], rel=0.25)


def test_they_fit_where_they_would_not_without_the_server(ranch: Ranch) -> None:
    """Nothing of them is remembered: their context is another one."""
    ranch.unload()
    for model in ranch.content["models"].values():
        model["engine"] = {**model["engine"], "n_ctx": 520}
    ranch.room(ram_budget="150MiB")
    assert ranch.say(FAR)
    refused = ranch.ask(NEAR)
    assert refused.status_code == 503
    assert "model near needs" in error_of(refused.content)["message"]
    ranch.room()


def test_two_models_take_turns_on_one_server(ranch: Ranch) -> None:
    """Whatever they call it, and whoever asks for them at once."""
    ranch.room(swap_after_s=0.1)
    for model in (FAR, AWAY, FAR, AWAY):
        assert ranch.say(model).startswith(" four")
        assert ranch.ready() & {FAR, AWAY} == {model}
    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(ranch.say, (FAR, AWAY, NEAR, FAR, AWAY, FAR)))
    assert len(answers) == 1
    assert len(ranch.ready() & {FAR, AWAY}) == 1
    assert ranch.lender.process.poll() is None


def test_who_waits_for_the_server_does_not_stop_a_stream(ranch: Ranch) -> None:
    ranch.unload()
    ranch.room(swap_after_s=0.1)
    n = 200
    body = {
        **{"model": FAR, "prompt": "Once", "max_tokens": n, "ignore_eos": True},
        **{"stream": True, "stream_options": {"include_usage": True}},
    }
    with (
        ThreadPoolExecutor(1) as pool,
        ranch.http.stream("POST", "/v1/completions", json=body) as stream,
    ):
        lines = (line for line in stream.iter_lines() if line.startswith("data: {"))
        assert next(lines)
        waiting = pool.submit(ranch.say, AWAY)
        eventually(lambda: ranch.states()[AWAY]["state"] == "waiting", "away waits")
        *_, last = lines
        assert json.loads(last.removeprefix("data: "))["usage"]["completion_tokens"] == n
        assert waiting.result(ANSWER_S).startswith(" four")
    assert ranch.ready() & {FAR, AWAY} == {AWAY}


def test_a_server_that_has_gone_is_named(ranch: Ranch) -> None:
    ranch.unload()
    ranch.lender.end()
    expected = f"engine.rpc_servers: {ranch.lender.endpoint}: Connection refused"
    for answer in (ranch.plan(FAR), ranch.ask(FAR)):
        assert answer.status_code >= 500
        assert expected in error_of(answer.content)["message"]
