"""Several models in one server: side by side, in turn, pinned, unloaded, read again, fetched."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import openai
import psutil
import pytest
from openai import OpenAI, Stream
from openai.types import Completion

from tests.e2e.asking import sdk_at
from tests.e2e.process import ANSWER_S, N_THREADS, Corral, eventually, serving
from tests.e2e.wire import error_of
from tests.pool.stand_in_hub import StandIn, serve

A, B = "a", "b"
REPO = "someone/tiny-GGUF"
PULLED = "pulled.Q4_1"

ENGINE = {"n_ctx": 512, "n_slots": 2, "n_threads": N_THREADS, "prefix_cache": "1MiB"}
LONG = 120
"""Tokens of an answer that is still running when the next request has come."""

Json = dict[str, Any]


@dataclass
class Stable:
    """A server, and the configuration that it reads again."""

    corral: Corral
    http: httpx.Client
    sdk: OpenAI
    hub: StandIn
    path: Path
    model: Path
    content: Json = field(default_factory=dict[str, Any])

    def write(self, *ids: str, **top: Any) -> None:
        """A configuration of the demo model under these ids; `top` are keys at its top level."""
        entry = {"path": str(self.model), "engine": ENGINE}
        self.content = {"models": dict.fromkeys(ids or (A, B), entry), **top}
        self.save()

    def save(self) -> None:
        self.path.write_text(json.dumps(self.content))

    def reload(self) -> Json:
        answer = self.http.post("/admin/reload")
        assert answer.is_success, answer.text
        return answer.json()

    def order(self, what: str, model: str, **fields: object) -> httpx.Response:
        return self.http.post(f"/admin/models/{what}", json={"model": model, **fields})

    def look(self) -> Json:
        return self.http.get("/admin/models").json()

    def states(self) -> dict[str, Json]:
        return {model["id"]: model for model in self.look()["data"]}

    def state(self, model: str) -> str:
        return self.states()[model]["state"]

    def need(self) -> int:
        """Bytes of RAM that one of the models takes."""
        return self.order("load", A).json()["memory"]["ram"]

    def room_for_one(self, **pool: object) -> int:
        """The budget from now on."""
        budget = int(1.5 * self.need())
        self.write(pool={"ram_budget": budget, **pool})
        self.reload()
        return budget

    def say(self, model: str, n: int = 2, **fields: object) -> str:
        answer = self.sdk.completions.create(
            model=model, prompt="Once", max_tokens=n, extra_body={"ignore_eos": True, **fields}
        )
        assert answer.usage is not None and answer.usage.completion_tokens == n
        return answer.choices[0].text

    def stream(self, model: str, n: int = LONG) -> Stream[Completion]:
        """One that has begun."""
        stream = self.sdk.completions.create(
            model=model,
            prompt="Once",
            max_tokens=n,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        assert next(stream).choices
        return stream


def n_tokens(stream: Stream[Completion]) -> int:
    """Of the whole answer, read to its end."""
    *_, last = stream
    assert last.usage is not None
    return last.usage.completion_tokens


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Stable]:
    folder = tmp_path_factory.mktemp("stable")
    config = folder / "config.yaml"
    config.write_text(json.dumps({"models": {A: {"path": str(model_path), "engine": ENGINE}}}))
    with serve() as hub:
        env = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "CORRAL_CACHE": str(folder / "cache"),
        }
        with serving(config, env=env) as corral:
            url = corral.wait_until_it_listens()
            with httpx.Client(base_url=url, timeout=ANSWER_S) as http, sdk_at(url) as sdk:
                yield Stable(corral, http, sdk, hub, config, model_path)


@pytest.fixture
def stable(shared: Stable) -> Stable:
    """Two models, as much memory as there is, and nothing loaded."""
    for model in shared.states():
        shared.order("unload", model, force=True)
    shared.write()
    shared.reload()
    return shared


def test_two_models_generate_at_the_same_time(stable: Stable) -> None:
    with stable.stream(A) as one, stable.stream(B) as other:
        seen = stable.look()
        running = {model["id"]: model["n_running"] for model in seen["data"]}
        assert running == {A: 1, B: 1}
        needs = [model["memory"]["ram"] for model in seen["data"]]
        assert seen["taken"]["ram"] == sum(needs) <= seen["budget"]["ram"]
        # What is set aside for a model is about what it takes.
        for model in seen["data"]:
            assert model["resident"] == pytest.approx(model["memory"]["ram"], rel=0.25)
        assert (n_tokens(one), n_tokens(other)) == (LONG, LONG)
    assert len(stable.corral.workers()) == 2


def test_with_room_for_one_they_take_turns(stable: Stable) -> None:
    budget = stable.room_for_one()
    for model in (A, B, A, B):
        assert stable.say(model)
        seen = stable.look()
        assert seen["taken"]["ram"] <= seen["budget"]["ram"] == budget
        assert {m["id"] for m in seen["data"] if m["state"] == "ready"} == {model}
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(stable.say, (A, B, A, B, A, B)))
    (_,) = stable.corral.workers()


def test_a_running_stream_is_never_evicted(stable: Stable) -> None:
    stable.room_for_one(swap_after_s=0.1)
    body = {"model": B, "prompt": "Once", "max_tokens": 2, "stream": True}
    with stable.stream(A, 2 * LONG) as stream, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stable.http.post, "/v1/completions", json=body)
        eventually(lambda: stable.state(B) == "waiting", "b waits")
        assert stable.states()[B]["n_queued"] == 1
        assert n_tokens(stream) == 2 * LONG
        answer = waiting.result(ANSWER_S).text
    assert "\n: waiting for memory\n" in f"\n{answer}"
    assert answer.endswith("data: [DONE]\n\n") and '"error"' not in answer


def test_unloading_gives_the_memory_back(stable: Stable) -> None:
    server = psutil.Process(stable.corral.process.pid)

    def taken() -> int:
        return sum(child.memory_info().rss for child in server.children(recursive=True))

    before = taken()
    stable.say(A)
    stable.say(B)
    assert taken() - before > 2 * 90e6
    for model in (A, B):
        assert stable.order("unload", model).json()["state"] == "unloaded"
    # The process that waits for the next load may still have been growing.
    assert taken() - before < 70e6
    assert stable.corral.workers() == []


def test_a_model_in_use_is_unloaded_by_force_only(stable: Stable) -> None:
    with stable.stream(A, 400) as stream:
        refused = stable.order("unload", A)
        assert refused.status_code == 409
        assert error_of(refused.content)["code"] == "busy"
        assert next(stream)
        assert stable.order("unload", A, force=True).json()["state"] == "unloaded"
        with pytest.raises(openai.APIError, match="being unloaded") as caught:
            list(stream)
    assert caught.value.code == "unavailable"


def test_a_pinned_model_stays(stable: Stable) -> None:
    stable.room_for_one()
    assert stable.order("load", A).json()["state"] == "ready"
    assert stable.order("pin", A).json()["pinned"]
    with pytest.raises(openai.InternalServerError) as caught:
        stable.say(B)
    assert caught.value.status_code == 503
    assert "of which a, pinned, leave" in caught.value.message
    assert stable.order("pin", A, pinned=False).json()["pinned"] is False
    assert stable.state(A) == "ready"
    eventually(lambda: stable.order("load", B).is_success, "b has room")
    assert stable.state(A) == "unloaded"


def test_how_long_a_model_is_kept(stable: Stable) -> None:
    stable.say(A, keep_alive=0)
    eventually(lambda: stable.state(A) == "unloaded", "gone after its request", 5)
    stable.write(pool={"idle_unload_s": 0.1})
    stable.reload()
    stable.say(A)
    stable.say(B, ttl=-1)
    eventually(lambda: stable.state(A) == "unloaded", "gone after a while", 5)
    assert stable.state(B) == "ready"


def test_the_configuration_is_read_again(stable: Stable) -> None:
    assert stable.say(A) and stable.say(B)
    (kept, changed) = (worker.pid for worker in stable.corral.workers())
    stable.write(A, B, "c", default_model="c")
    stable.content["models"][B] = {**stable.content["models"][B], "sampling": {"top_k": 1}}
    stable.content["models"][B]["engine"] = {**ENGINE, "n_slots": 1}
    stable.save()
    told = stable.reload()
    assert (told["added"], told["changed"], told["removed"]) == (["c"], [B], [])
    assert stable.say(B)
    assert stable.states()[B]["n_slots"] == 1
    left = {worker.pid for worker in stable.corral.workers()}
    assert kept in left and changed not in left
    answer = stable.http.post("/v1/completions", json={"prompt": "Once", "max_tokens": 1}).json()
    assert answer["model"] == "c"

    stable.path.write_text("models: {a: {pth: nowhere}}")
    refused = stable.http.post("/admin/reload")
    assert refused.status_code == 400
    assert "models.a" in error_of(refused.content)["message"]
    assert stable.say(A)
    stable.corral.process.send_signal(signal.SIGHUP)
    assert stable.corral.log.wait_for("not reloaded, the configuration is unusable", 10)

    stable.write(A)
    stable.corral.process.send_signal(signal.SIGHUP)
    eventually(lambda: [*stable.states()] == [A], "others are gone", 10)
    with pytest.raises(openai.NotFoundError) as caught:
        stable.say(B)
    assert caught.value.code == "model_not_found"
    assert stable.say(A)
    assert [worker.pid for worker in stable.corral.workers()] == [kept]


def test_events_tell_it_in_order(stable: Stable) -> None:
    stable.room_for_one()
    stable.order("unload", A)
    seen: list[Json] = []
    listening, ended = Event(), Event()

    def listen() -> None:
        with stable.http.stream("GET", "/admin/events") as response:
            listening.set()
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    seen.append(json.loads(line.removeprefix("data: ")))
                if seen and seen[-1]["type"] == "reloaded":
                    break
        ended.set()

    with ThreadPoolExecutor(1) as pool:
        listener = pool.submit(listen)
        assert listening.wait(10)
        began = stable.http.get("/healthz").is_success
        assert began
        stable.say(A)
        stable.say(B)
        stable.reload()
        listener.result(ANSWER_S)
    since = max(i for i, e in enumerate(seen[:3]) if e.get("state") == "unloaded") + 1
    told = [
        (event["model"], event["state"], event["reason"])
        for event in seen[since:]
        if event["type"] == "state"
    ]
    assert [*dict.fromkeys(told)] == [
        (A, "waiting", None),
        (A, "loading", None),
        (A, "ready", None),
        (B, "waiting", None),
        (A, "unloading", f"to make room for {B}"),
        (A, "unloaded", None),
        (B, "loading", None),
        (B, "ready", None),
    ]
    times = [event["at"] for event in seen[since:]]
    assert times == sorted(times)


def test_a_pulled_model_is_there_at_once(stable: Stable) -> None:
    stable.hub.repos[REPO] = {f"{PULLED}.gguf": stable.model.read_bytes()}
    assert stable.say(A)
    (worker,) = stable.corral.workers()
    answer = stable.http.post("/admin/models/pull", json={"repo": REPO})
    *_, done, end = answer.text.removesuffix("\n\n").split("\n\n")
    assert end == "data: [DONE]"
    assert json.loads(done.removeprefix("data: "))["models"][0]["id"] == PULLED
    listed = [model["id"] for model in stable.http.get("/v1/models").json()["data"]]
    assert listed == [A, B, PULLED]
    assert stable.say(f"{REPO}:Q4_1")
    assert worker.is_running()
