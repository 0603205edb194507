"""`corral plan` by its output."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.command_line import app
from server.commands import plan as command
from server.gguf import read_header
from tests.engine.lenders import lending, needs_rpc
from tests.gguf_files import Shape, write_sparse

MIXTRAL = "bagel-dpo-8x7b-v0.2.Q4_K_M"
ROOM = ("--gpu-free", "24GiB", "--ram-free", "64GiB", "--ctx", "8192", "--slots", "4")

# What attention is computed with, and takes, depends on the processor.
SETTINGS = """
models_dir: {}
hf_cache: off
found: {{engine: {{flash_attn: on}}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    write_sparse(place / f"{MIXTRAL}.gguf")
    write_sparse(place / "bagel-dpo-8x7b-v0.2.Q8_0.gguf", Shape(most=Shape.kinds()["Q8_0"]))
    (place / "config.yaml").write_text(SETTINGS.format(place))
    return place


def corral(folder: Path, *args: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["plan", args[0], "--config", str(folder / "config.yaml"), *args[1:]]
    )
    return result.exit_code, result.output


def lines(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def test_a_table(folder: Path) -> None:
    code, output = corral(folder, "bagel-dpo-8x7b-v0.2:Q4_K_M", *ROOM)
    assert code == 0
    found = lines(output)
    assert ["0", "28.9", "GiB", "0", "bytes", "yes"] in found
    assert ["26", "6.9", "GiB", "23.3", "GiB", "yes"] in found
    # What lies between rows that are alike is left out.
    assert ["..."] in found
    assert not any(line[:1] == ["12"] for line in found)
    (chosen,) = (line for line in found if line[-2:] == ["<-", "auto"])
    assert chosen[:2] == ["33", "4"]
    assert "auto: 33 of 33 layers on the GPU, with the experts of 4 in RAM, 11,776 cells" in output
    best = next(line for line in found if line[-1:] == ["best"])
    assert best[0] == "bagel-dpo-8x7b-v0.2.Q8_0"


def test_json(folder: Path) -> None:
    code, output = corral(folder, MIXTRAL, *ROOM, "--json")
    assert code == 0
    told = json.loads(output)
    assert told["auto"]["n_gpu_layers"] == 33
    assert len(told["rows"]) == 34 + 32


def test_a_file_needs_no_configuration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    path = str(folder / f"{MIXTRAL}.gguf")
    result = CliRunner().invoke(app, ["plan", path, "--gpu-free", "", "--ram-free", "2GiB"])
    assert result.exit_code == 0
    assert "that does not fit" in result.output


def test_what_this_machine_has_free(folder: Path) -> None:
    code, output = corral(folder, MIXTRAL, "--json")
    assert code == 0
    assert json.loads(output)["free"]["ram"] > 0


def test_what_llama_says(folder: Path) -> None:
    args = ("--gpu-free", "", "--ram-free", "64GiB", "--ctx", "2048", "--slots", "1", "--exact")
    code, output = corral(folder, MIXTRAL, *args)
    assert code == 0
    assert "llama.cpp, beside the weights: CPU output " in output
    assert "all KV 256.0 MiB" in output
    _, output = corral(folder, MIXTRAL, *args, "--json")
    exact = {size["kind"]: size["n_bytes"] for size in json.loads(output)["exact"]}
    assert exact["KV"] == 2048 * 128 * 1024


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot(folder: Path, tmp_path: Path, ending: str) -> None:
    picture = tmp_path / f"plan.{ending}"
    code, _ = corral(folder, MIXTRAL, *ROOM, "--plot", str(picture))
    assert code == 0
    drawn = picture.read_bytes()
    assert drawn.startswith(b"\x89PNG") if ending == "png" else b"<!-- GPU 0 -->" in drawn


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none",), "the model 'none' does not exist"),
        ((MIXTRAL, "--gpu-free", "much"), "--gpu-free: 'much' is no size"),
        ((MIXTRAL, "--ram-free", "1GiB,2GiB"), "--ram-free 1GiB,2GiB: one size"),
        ((MIXTRAL, *ROOM[2:], "--gpu-free", "1GiB," * 9, "--exact"), "GPUs here, not 9"),
        ((MIXTRAL, *ROOM, "--kv-quant", "q9"), "--kv-quant q9: one of f32,"),
        ((MIXTRAL, *ROOM, "--plot", "plan.gguf"), "cannot write plan.gguf"),
        ((MIXTRAL, *ROOM, "--plot", "/nowhere/plan.png"), "/nowhere: no such folder"),
    ],
)
def test_what_cannot_be_done(folder: Path, args: tuple[str, ...], message: str) -> None:
    code, output = corral(folder, *args)
    assert code == 1
    assert message in output


def test_a_plot_without_matplotlib(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(_: str) -> None:
        return None

    monkeypatch.setattr(command, "find_spec", find)
    code, output = corral(folder, MIXTRAL, *ROOM, "--plot", str(tmp_path / "p.png"))
    assert code == 1
    assert "needs matplotlib" in output


@needs_rpc
def test_devices_of_an_rpc_server(folder: Path, model_path: Path) -> None:
    """They are columns as GPUs are, and are asked for what they have free."""
    with lending(1) as (lender,):
        engine = {"rpc_servers": [lender.endpoint], "n_ctx": 512, "n_slots": 1}
        config = {"models": {"far": {"path": str(model_path), "engine": engine}}, "hf_cache": "off"}
        path = folder / "rpc.yaml"
        path.write_text(json.dumps(config))
        args = ["plan", "far", "--config", str(path)]
        shown = CliRunner().invoke(app, args)
        assert shown.exit_code == 0, shown.output
        assert f"RPC0 of {lender.endpoint}" in shown.output.splitlines()[1]
        assert "auto: 31 of 31 layers on the GPU" in shown.output
        told = json.loads(CliRunner().invoke(app, [*args, "--json"]).output)
        assert told["devices"] == [{"name": "RPC0", "server": lender.endpoint}]
        assert len(told["free"]["gpus"]) == 1 and told["free"]["gpus"][0] > 2**27
        whole, far = told["rows"][0], told["auto"]
        weights = read_header(model_path).weights
        assert whole["gpus"] == [0] and far["gpus"][0] > weights
        assert whole["ram"] - far["ram"] > 0.5 * weights
        exact = CliRunner().invoke(app, [*args, "--exact"])
        assert exact.exit_code == 1 and "not RPC servers" in exact.output
    refused = CliRunner().invoke(app, args)
    assert refused.exit_code == 1
    assert f"engine.rpc_servers: {lender.endpoint}: Connection refused" in refused.output
    # What is said to be free needs no server.
    said = CliRunner().invoke(app, [*args, "--gpu-free", "1GiB"])
    assert said.exit_code == 0 and "GPU 0" in said.output


@pytest.mark.parametrize(
    ("devices", "shown"),
    [
        ("none", "auto: 0 of 31 layers on the GPU"),
        ("CUDA77", "engine.devices: there is no CUDA77; "),
    ],
)
def test_devices_that_a_model_names(
    folder: Path, model_path: Path, devices: str, shown: str
) -> None:
    model = {"path": str(model_path), "engine": {"devices": devices}}
    path = folder / "named.yaml"
    path.write_text(json.dumps({"models": {"one": model}, "hf_cache": "off"}))
    told = CliRunner().invoke(app, ["plan", "one", "--config", str(path)])
    assert shown in told.output
    assert told.exit_code == int(devices != "none")
