"""How long a server takes to start.

cold        from the start of the process to the first token, the file being in the page cache
catalogue   Corral with 1,000 models, none loaded: seconds until it is ready, and to list them
"""

import http.client
import statistics
import time
from functools import partial
from pathlib import Path

from bench.load import Address, Answer, LoadError, LoadGenerator
from bench.measure import Measurement, Plan, Recorder, own_seconds
from bench.prompts import PromptSource
from bench.scenarios import FIRST_START_S, FIRST_TOKEN_S, LIST_S, START_S, Figures
from bench.servers import (
    CORRAL,
    EXAMPLE,
    RETRY_S,
    START_TIMEOUT_S,
    Server,
    ServerError,
    Setup,
    Spec,
    corral,
    running,
    starting,
)

LIMIT = "limit"
LIMITS: Figures = {START_S: 5.0, LIST_S: 0.05}
"""What the catalogue is held against: there is no peer."""
N_MODELS = 1000
N_LISTS = 20
N_WORDS = 64
TAKEN = 2 * 2**30
N_TOKENS = 8


def _first_answer(server: Server, prompts: PromptSource) -> Answer:
    """The answer that a client gets who asks again and again from the start on."""
    request = server.request(prompts.distinct(N_WORDS), N_TOKENS)
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            return LoadGenerator(server.address).run([[request]])[0]
        except (LoadError, OSError):
            time.sleep(RETRY_S)
    raise ServerError(f"{server.spec.title} gave no answer, see {server.log}")


def _have_memory() -> None:
    """Use and free as much as a server takes.

    A hypervisor may have taken back what was free, and gives it again page by page, slower than
    all else that is measured here.
    """
    b"." * TAKEN


def _cold(spec: Spec, setup: Setup, prompts: PromptSource) -> Figures:
    setup.model.read_bytes()
    _have_memory()
    with starting(spec, setup) as server:
        return {FIRST_TOKEN_S: _first_answer(server, prompts).arrivals[0] - server.started}


def _folder(setup: Setup) -> Path:
    return setup.cache.root / "catalogue"


def ensure_catalogue(setup: Setup) -> None:
    """Links to the model under so many names, as different files to whoever reads them."""
    folder = _folder(setup)
    folder.mkdir(exist_ok=True)
    for number in range(N_MODELS):
        link = folder / f"Model-{number:04d}.Q4_0.gguf"
        if not link.exists():
            link.hardlink_to(setup.model)


def _many_models(setup: Setup) -> dict[str, object]:
    return {"models_dir": str(_folder(setup))}


CATALOGUE = corral("corral-catalogue", f"Corral, {N_MODELS:,} models", _many_models)


def _list_s(address: Address) -> float:
    """Seconds to a list of all models. Raises LoadError if it is anything else."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    start = time.perf_counter()
    connection.request("GET", "/v1/models")
    response = connection.getresponse()
    raw = response.read()
    seconds = time.perf_counter() - start
    connection.close()
    n = raw.count(b'"id"')
    if response.status != 200 or n != N_MODELS:
        raise LoadError(f"status {response.status}, {n} models instead of {N_MODELS}")
    return seconds


def _first_start(setup: Setup) -> Figures:
    (setup.folder / "headers.json").unlink(missing_ok=True)
    with running(CATALOGUE, setup) as server:
        return {FIRST_START_S: server.ready_s}


def _catalogue(setup: Setup) -> Figures:
    with running(CATALOGUE, setup) as server:
        taken = [_list_s(server.address) for _ in range(N_LISTS)]
        return {START_S: server.ready_s, LIST_S: statistics.median(taken)}


def measure(setup: Setup, plan: Plan, recorder: Recorder) -> None:
    """All of it, round by round."""
    ensure_catalogue(setup)
    for round_ in range(plan.n_rounds):
        for spec in plan.specs:
            if spec.name != EXAMPLE:
                attempt = partial(_cold, spec, setup, plan.prompts(round_, "cold"))
                recorder.take(round_, "cold", spec.name, attempt, own_seconds)
        if round_ == 0:
            recorder.take(round_, "catalogue", CORRAL, partial(_first_start, setup), own_seconds)
        recorder.take(round_, "catalogue", CORRAL, partial(_catalogue, setup), own_seconds)
        recorder.add(Measurement(round_, LIMIT, "catalogue", LIMITS, 0.0))
