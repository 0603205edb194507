"""Several models behind one address, against llama-server's router mode on the same files.

turns   one client asks two models in turn, both loaded / each on a server of its own
swap    the same with room for one of them: seconds to the first token of each request
load    seconds to the first token of the first request to a model, the server being up
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.load import Answer, LoadError, LoadGenerator, Request
from bench.measure import Plan, Recorder, own_seconds
from bench.prompts import PromptSource
from bench.scenarios import FIRST_SPEED, FIRST_TOKEN_S, SECOND_SPEED, SWAP_S, Figures
from bench.servers import CORRAL, N_CTX, Server, Setup, Spec, corral, llama_server_of, running
from server.engine_config import EngineConfig
from server.estimate import estimate
from server.gguf import read_header

ALONE = "alone"
ROUTER = "router"
FIRST, SECOND = "first", "second"
SPEEDS = {FIRST: FIRST_SPEED, SECOND: SECOND_SPEED}
N_SLOTS = 4
N_REQUESTS = 20
N_WORDS = 64
N_TOKENS = 64
N_SWAP_TOKENS = 4
ROOM = 1.4
"""Of what the larger model takes: room for one, far from room for two."""


def _files(setup: Setup) -> dict[str, Path]:
    return {FIRST: setup.model, SECOND: setup.second}


def _models(setup: Setup, ids: Sequence[str], preload: bool) -> dict[str, object]:
    engine = {"n_ctx": N_CTX, "n_slots": N_SLOTS, "n_threads": setup.n_threads}
    files = _files(setup)
    return {
        "models": {id: {"path": str(files[id]), "preload": preload, "engine": engine} for id in ids}
    }


def _room_for_one(setup: Setup) -> dict[str, object]:
    config = EngineConfig(n_ctx=N_CTX, n_slots=N_SLOTS)
    needs = [
        estimate(read_header(path), config, N_CTX, N_SLOTS).total for path in _files(setup).values()
    ]
    return {
        **_models(setup, (FIRST, SECOND), False),
        "pool": {"ram_budget": int(ROOM * max(needs))},
    }


def _router(n_models: int) -> Spec:
    def more(setup: Setup) -> list[str]:
        preset = setup.folder / "router.ini"
        sections = [f"[{id}]\nmodel = {path}\n" for id, path in _files(setup).items()]
        preset.write_text("version = 1\n" + "".join(sections))
        return ["--models-preset", str(preset), "--models-max", str(n_models)]

    return llama_server_of(ROUTER, f"llama-server, router of {n_models}", N_SLOTS, more)


def _corral(name: str, config: Callable[[Setup], dict[str, object]]) -> Spec:
    return corral(f"corral-{name}", f"Corral, {name}", config)


BOTH = _corral("both", lambda setup: _models(setup, (FIRST, SECOND), True))
APART = {id: _corral(id, lambda setup, id=id: _models(setup, (id,), True)) for id in SPEEDS}
EMPTY = _corral("empty", lambda setup: _models(setup, (FIRST, SECOND), False))
ONE_AT_A_TIME = _corral("room-for-one", _room_for_one)


def _ask(server: Server, request: Request) -> Answer:
    return LoadGenerator(server.address).run([[request]])[0]


def _request(
    server: Server, prompts: PromptSource, model: str, n_tokens: int = N_TOKENS
) -> Request:
    return server.request(prompts.distinct(N_WORDS), n_tokens, model=model)


def _in_turn() -> list[str]:
    return [FIRST, SECOND] * (N_REQUESTS // 2)


def _speeds(servers: dict[str, Server], prompts: PromptSource) -> Figures:
    """Tokens per second of each model, over the time of its own requests."""
    taken: dict[str, list[float]] = {id: [] for id in servers}
    for id in _in_turn():
        answer = _ask(servers[id], _request(servers[id], prompts, id))
        taken[id].append(answer.done - answer.sent)
    return {SPEEDS[id]: N_TOKENS / statistics.mean(seconds) for id, seconds in taken.items()}


def _alone(servers: dict[str, Server], prompts: PromptSource) -> Figures:
    """The same, each model's requests on end."""
    figures: Figures = {}
    for id, server in servers.items():
        requests = [_request(server, prompts, id) for _ in range(N_REQUESTS // 2)]
        answers = LoadGenerator(server.address).run([requests])
        figures[SPEEDS[id]] = N_TOKENS / statistics.mean(a.done - a.sent for a in answers)
    return figures


def _swaps(server: Server, prompts: PromptSource) -> Figures:
    """Seconds to the first token where each request finds the other model loaded."""
    _ask(server, _request(server, prompts, SECOND, N_SWAP_TOKENS))
    taken: list[float] = []
    for id in _in_turn():
        before = server.workers()
        answer = _ask(server, _request(server, prompts, id, N_SWAP_TOKENS))
        if server.workers() == before:
            raise LoadError(f"model {id} was loaded already, with room for one")
        taken.append(answer.first_token_s)
    return {SWAP_S: statistics.mean(taken)}


def _first_load(spec: Spec, setup: Setup, prompts: PromptSource) -> Figures:
    with running(spec, setup) as server:
        return {FIRST_TOKEN_S: _ask(server, _request(server, prompts, FIRST)).first_token_s}


def _turns(round_: int, setup: Setup, plan: Plan, recorder: Recorder) -> None:
    with ExitStack() as stack:
        ours, router = (stack.enter_context(running(spec, setup)) for spec in (BOTH, _router(2)))
        apart = {id: stack.enter_context(running(spec, setup)) for id, spec in APART.items()}
        together = {CORRAL: dict.fromkeys(SPEEDS, ours), ROUTER: dict.fromkeys(SPEEDS, router)}
        warm_up = plan.prompts(round_, "turns warm-up")
        for servers in (*together.values(), apart):
            for id, server in servers.items():
                _ask(server, _request(server, warm_up, id))
        for name, servers in {
            CORRAL: together[CORRAL],
            ALONE: apart,
            ROUTER: together[ROUTER],
        }.items():
            measure = _alone if name == ALONE else _speeds
            attempt = partial(measure, servers, plan.prompts(round_, "turns"))
            recorder.take(round_, "turns", name, attempt, _seconds_of(*servers.values()))


def _swap(round_: int, setup: Setup, plan: Plan, recorder: Recorder) -> None:
    for name, spec in ((CORRAL, ONE_AT_A_TIME), (ROUTER, _router(1))):
        with recorder.noting(round_, "swap", name), running(spec, setup) as server:
            attempt = partial(_swaps, server, plan.prompts(round_, "swap"))
            recorder.take(round_, "swap", name, attempt, _seconds_of(server))


def _load(round_: int, setup: Setup, plan: Plan, recorder: Recorder) -> None:
    for name, spec in ((CORRAL, EMPTY), (ROUTER, _router(2))):
        attempt = partial(_first_load, spec, setup, plan.prompts(round_, "load"))
        recorder.take(round_, "load", name, attempt, own_seconds)


def _seconds_of(*servers: Server) -> Callable[[], float]:
    """Processor time of the servers and of this process."""
    distinct = {server.process.pid: server for server in servers}.values()
    return lambda: sum(server.cpu_seconds() for server in distinct) + time.process_time()


def measure(setup: Setup, plan: Plan, recorder: Recorder) -> None:
    """All of it, round by round."""
    for round_ in range(plan.n_rounds):
        for name, part in {"turns": _turns, "swap": _swap, "load": _load}.items():
            with recorder.noting(round_, name, "all"):
                part(round_, setup, plan, recorder)
