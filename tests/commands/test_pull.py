"""`corral pull` as a user runs it: a process, with the hub's variables around it."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

from tests.e2e.process import eventually
from tests.pool.stand_in_hub import TOKEN, StandIn, serve, sha256

ROOT = Path(__file__).resolve().parent.parent.parent
REPO = "someone/mix-GGUF"
SMALL, LARGE = b"GGUF" * 50_000, b"gguf" * 60_000
WAIT_S = 120.0


@pytest.fixture
def hub() -> Generator[StandIn]:
    with serve() as stand_in:
        stand_in.repos[REPO] = {
            "mix.Q4_K_M.gguf": SMALL,
            "mix.Q6_K.gguf": LARGE,
            "mmproj-f16.gguf": b"eyes",
        }
        yield stand_in


@pytest.fixture
def environment(hub: StandIn, tmp_path: Path) -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "CORRAL_"))}
    return {**ours, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        (sys.executable, "-m", "server", "pull", *arguments),
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """The exit status, stdout and stderr."""
    with start(environment, *arguments) as process:
        out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


def test_the_best_quant_comes_into_the_cache(environment: dict[str, str], tmp_path: Path) -> None:
    status, out, err = run(environment, REPO)
    assert status == 0, err
    (said, *_) = err.splitlines()
    assert said.startswith(f"{REPO}: Q6_K, 234.4 KiB: the largest of Q4_K_M to Q6_K that fits")
    path, _, lines = out.partition("\n")
    assert Path(path).read_bytes() == LARGE
    assert Path(path).is_relative_to(tmp_path / "hf" / "hub")
    assert yaml.safe_load(lines.partition("In config.yaml:")[2]) == {
        "models": {"mix.Q6_K": {"path": path}}
    }


def test_into_a_folder_with_a_token(
    hub: StandIn, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.gated.add(REPO)
    status, _, err = run(environment, REPO, ":Q4_K_M")
    assert (status, err.splitlines()[-1]) == (
        1,
        f"corral: {REPO} is gated: ask for access and set HF_TOKEN at {hub.url}/{REPO}",
    )
    folder = tmp_path / "models"
    given = {**environment, "HF_TOKEN": TOKEN}
    status, out, err = run(given, f"{REPO}:Q4_K_M", "--local-dir", str(folder))
    assert status == 0, err
    assert out.splitlines()[0] == str(folder / "mix.Q4_K_M.gguf")
    assert (folder / "mix.Q4_K_M.gguf").read_bytes() == SMALL


def test_what_is_no_model_gets_no_lines_for_the_configuration(environment: dict[str, str]) -> None:
    status, out, err = run(environment, REPO, "mmproj*")
    assert status == 0, err
    (path,) = out.splitlines()
    assert Path(path).read_bytes() == b"eyes"


def test_what_does_not_match_lists_what_there_is(environment: dict[str, str]) -> None:
    status, out, err = run(environment, REPO, "*Q5*")
    assert (status, out) == (1, "")
    assert err.endswith(
        "corral: nothing matches *Q5*; there is mmproj-f16 (4 bytes), "
        "mix.Q4_K_M (195.3 KiB), mix.Q6_K (234.4 KiB)\n"
    )


def test_offline_is_told(hub: StandIn, environment: dict[str, str]) -> None:
    status, out, err = run({**environment, "HF_HUB_OFFLINE": "1"}, REPO)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("corral: HF_HUB_OFFLINE is set, so someone/mix-GGUF ")
    assert hub.requests == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_what_is_stopped_goes_on_from_there(
    hub: StandIn, environment: dict[str, str], sign: signal.Signals
) -> None:
    hub.stall_after = 100_000
    with start(environment, REPO, ":Q4_K_M") as process:
        assert hub.stalled.wait(WAIT_S)
        blobs = Path(environment["HF_HOME"], "hub", "models--someone--mix-GGUF", "blobs")
        part = blobs / f"{sha256(SMALL)}.incomplete"
        eventually(lambda: part.is_file() and part.stat().st_size > 0, "bytes on the disk")
        process.send_signal(sign)
        _, err = process.communicate(timeout=WAIT_S)
    if sign == signal.SIGINT:
        assert process.returncode == 130, err
        assert err.endswith("corral: stopped; the same command goes on from here\n")
    kept = part.stat().st_size
    assert 0 < kept <= 100_000
    hub.stall_after = None
    hub.go_on.set()
    status, out, err = run(environment, REPO, ":Q4_K_M")
    assert status == 0, err
    assert Path(out.splitlines()[0]).read_bytes() == SMALL
    assert hub.sent("mix.Q4_K_M.gguf")[-1].range == f"bytes={kept}-"
    assert not part.exists()
