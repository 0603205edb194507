"""schemathesis: requests made up from /openapi.json find no 5xx and no answer of another shape.

CORRAL_FUZZ_S is for how many seconds; `make fuzz` takes ten minutes.
"""

import os
from pathlib import Path

import httpx

from tests.e2e.asking import MODEL, scrape
from tests.e2e.conftest import lone
from tests.third_party.running import CLIENTS, PROGRAMS, run

SECONDS = int(os.environ.get("CORRAL_FUZZ_S", "60"))

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
"""Not: that whatever the document allows is answered, since no document knows which models and
responses there are; and that whatever it does not allow is refused, since clients send fields that
are not served, and numbers as strings."""

LEFT_OUT = r"/admin/(events|reload|models/(unload|pull))$"
"""Events never end; the others reach out to the hub, or take the model from the rest."""

ROUNDS = 4
"""As many as it takes to reach all of ASKED, at most: a busy machine gets less far in its time."""

ASKED = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/generate",
    "/responses",
    "/tokenize",
)
"""Endpoints that must have answered something, or the rest says little."""


def test_nothing_made_up_breaks_it(model_path: Path, tmp_path: Path) -> None:
    server = {"store": "responses.sqlite"}
    engine = {"n_ctx": 256, "n_slots": 4}
    # hypothesis has no fresh mind in a second thread: more workers find faults of each other's.
    with lone(tmp_path, model_path, server, engine) as asked:
        command = [CLIENTS / "bin" / "schemathesis", "run", f"{asked.url}/openapi.json"]
        command += ["--max-time", str(SECONDS), "--phases", "coverage,fuzzing"]
        command += ["--checks", ",".join(CHECKS), "--request-timeout", "120"]
        command += ["--exclude-path-regex", LEFT_OUT]
        command += ["--generation-database", ":memory:", "--continue-on-failure"]
        environ = {"SCHEMATHESIS_HOOKS": "hooks", "CORRAL_MODEL": MODEL}
        environ |= {"PYTHONPATH": str(PROGRAMS)}
        unreached = set(ASKED)
        for _ in range(ROUNDS):
            run([*command], tmp_path, environ, cwd=tmp_path, within_s=SECONDS + 300)
            assert "the worker died" not in asked.corral.log.text
            unreached -= reached(asked.http)
            if not unreached:
                break
        assert not unreached


def reached(http: httpx.Client) -> set[str]:
    """The endpoints of which the model has answered something."""
    answered = scrape(http)
    labels = {"model": MODEL, "status": "200"}
    return {
        endpoint
        for endpoint in ASKED
        if answered.get("corral_requests_total", {**labels, "endpoint": endpoint})
    }
