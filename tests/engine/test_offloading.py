"""Layers, experts and cells on devices that are not ours: servers on this machine, over RPC."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest

from server.engine_config import EngineConfig
from server.ipc import LoadFailed, ModelInfo, Text
from tests.engine.lenders import Lender, lending, needs_rpc
from tests.engine.offloading import Opened, Wanted, opened
from tests.engine.test_main import started, words
from tests.mixtral import EXPERT_BYTES, N_LAYER, write_mixtral

pytestmark = needs_rpc

PLAIN = EngineConfig(
    n_ctx=256,
    n_slots=1,
    n_batch=32,
    n_ubatch=32,
    n_threads=1,
    flash_attn="off",
    kv_layout="split",
    n_gpu_layers=0,
    mmap=False,
    use_extra_bufts=False,
)
"""Computed here as an RPC server computes, which repacks nothing: to the last bit."""

CELLS = 256 * 2 * 3 * 64 * 2
"""Bytes of K and V of one layer of the demo model: 3 heads of 64 in 16 bits."""

ROUNDING = 40_000
"""Bytes. llama.cpp logs hundredths of MiB for each buffer, of which a device has a few."""

LAYERS = (0, 1, 10, 20, "all")
MIXTRAL_PROMPT = (1, 80, 90, 100)


@pytest.fixture(scope="module")
def lenders() -> Iterator[list[Lender]]:
    with lending(2) as lenders:
        yield lenders


def settings(lenders: list[Lender], **more: Any) -> EngineConfig:
    servers = {"rpc_servers": tuple(lender.endpoint for lender in lenders)}
    return PLAIN.model_copy(update=servers | more)


def results(wanted: list[Wanted], lenders: list[Lender]) -> list[Opened]:
    found = opened(wanted, [lender.process.pid for lender in lenders])
    for result in found:
        assert isinstance(result, Opened), result
    return [result for result in found if isinstance(result, Opened)]


@pytest.fixture(scope="module")
def by_layers(model_path: Path, lenders: list[Lender]) -> dict[object, Opened]:
    """The demo model without a device, and with so many layers on one."""
    one = lenders[:1]
    wanted = [Wanted(model_path, PLAIN)]
    wanted += [Wanted(model_path, settings(one, n_gpu_layers=n)) for n in LAYERS]
    return dict(zip((None, *LAYERS), results(wanted, one), strict=True))


@pytest.fixture(scope="module")
def weights(model_path: Path) -> dict[str, int]:
    """Bytes of each layer, `blk.0` and so on, and of the embeddings, which are the output too."""
    sizes: dict[str, int] = {}
    for tensor in gguf.GGUFReader(model_path).tensors:
        part = (re.match(r"blk\.\d+", tensor.name) or re.match(r"\w+", tensor.name) or [""])[0]
        sizes[part] = sizes.get(part, 0) + int(tensor.n_bytes)
    return sizes


def last(n: int, weights: dict[str, int]) -> int:
    """Weights and cells of the last `n` layers."""
    return sum(weights[f"blk.{30 - i}"] + CELLS for i in range(1, n + 1))


def test_each_layer_moves_with_its_cells(
    by_layers: dict[object, Opened], weights: dict[str, int]
) -> None:
    """The output counts as the first layer to go. Compute buffers do not depend on the number."""
    there = {n: by_layers[n].memory["RPC0"] for n in LAYERS}
    here = {n: by_layers[n].memory["CPU"] for n in LAYERS}
    assert there[0] == 0
    for n in (10, 20):
        assert there[n] - there[1] == pytest.approx(last(n - 1, weights), abs=ROUNDING)
        assert here[1] - here[n] == pytest.approx(last(n - 1, weights), abs=ROUNDING)
    assert there["all"] - there[1] == pytest.approx(last(30, weights), abs=ROUNDING)
    output = weights["token_embd"] + weights["output_norm"]
    assert output <= there[1] < output + 16 * 2**20
    assert {n: by_layers[n].n_gpu_layers for n in (0, 1, 10, 20)} == {0: 0, 1: 1, 10: 10, 20: 20}


def test_the_processes_grow_and_shrink_by_it(
    by_layers: dict[object, Opened], weights: dict[str, int]
) -> None:
    """What the operating system says, which knows nothing of buffers."""
    moved = last(20 - 1, weights)
    ours = by_layers[1].resident[0] - by_layers[20].resident[0]
    theirs = by_layers[20].resident[1] - by_layers[1].resident[1]
    assert ours == pytest.approx(moved, rel=0.25)
    # A server keeps some of the room in which tensors arrived.
    assert 0.75 * moved < theirs < moved + 2 * weights["token_embd"]


def test_answers_stay_the_same(by_layers: dict[object, Opened]) -> None:
    assert len({result.tokens for result in by_layers.values()}) == 1
    assert len(set(by_layers[None].tokens)) > 3
    assert list(by_layers[None].memory) == ["CPU"]


def test_cells_can_stay_here(
    model_path: Path, lenders: list[Lender], by_layers: dict[object, Opened]
) -> None:
    config = settings(lenders[:1], n_gpu_layers="all", kv_offload=False)
    (result,) = results([Wanted(model_path, config)], [])
    assert result.tokens == by_layers[None].tokens
    # Attention is computed here then, and its buffers with it.
    assert by_layers["all"].memory["RPC0"] - result.memory["RPC0"] > 0.6 * 30 * CELLS
    assert result.memory["CPU"] - by_layers["all"].memory["CPU"] > 0.9 * 30 * CELLS


def test_devices_share_a_model(
    model_path: Path, lenders: list[Lender], by_layers: dict[object, Opened]
) -> None:
    """By shares, in the order in which the devices are named, and on one of them alone."""
    wanted = [
        Wanted(model_path, settings(lenders, n_gpu_layers="all", **more))
        for more in (
            {"tensor_split": (1.0, 3.0)},
            {"tensor_split": (1.0, 3.0), "devices": ("RPC1", "RPC0")},
            {"devices": ("RPC1",)},
            {"split_mode": "none", "main_gpu": 1},
            {"devices": ("none",)},
        )
    ]
    split, turned, second, alone, nowhere = results(wanted, lenders)
    n = last(30, {f"blk.{i}": 0 for i in range(30)}) + by_layers["all"].memory["RPC0"]
    assert 0 < split.memory["RPC0"] * 1.8 < split.memory["RPC1"] < n
    assert list(turned.memory) == ["CPU", "RPC1", "RPC0"]
    assert turned.memory["RPC1"] == pytest.approx(split.memory["RPC0"], abs=ROUNDING)
    assert turned.memory["RPC0"] == pytest.approx(split.memory["RPC1"], abs=ROUNDING)
    for result in (second, alone):
        assert result.memory["RPC1"] == pytest.approx(by_layers["all"].memory["RPC0"], abs=ROUNDING)
        assert "RPC0" not in result.memory or not result.memory["RPC0"]
    assert list(nowhere.memory) == ["CPU"]
    assert nowhere.n_gpu_layers == 0
    assert {result.tokens for result in (split, turned, second, alone, nowhere)} == {
        by_layers[None].tokens
    }


def test_experts_stay_here(lenders: list[Lender], tmp_path: Path) -> None:
    path = write_mixtral(tmp_path / "mixtral.gguf")
    by_type = f"RPC0[{lenders[0].endpoint}]"
    everything: dict[str, Any] = {"n_gpu_layers": "all"}
    placements: list[dict[str, Any]] = [
        {"n_gpu_layers": 0},
        everything,
        {**everything, "n_cpu_moe": 1},
        {**everything, "n_cpu_moe": 3},
        {**everything, "n_cpu_moe": "all"},
        {**everything, "override_tensors": (r"blk\.[02]\.ffn_down_exps=CPU",)},
        {"n_gpu_layers": 0, "override_tensors": ("ffn_up_exps=RPC0",)},
        # The first that fits counts: the experts of layer 0 go back to the device.
        {**everything, "n_cpu_moe": "all", "override_tensors": (rf"blk\.0\.={by_type}",)},
        {"n_gpu_layers": "auto"},
    ]
    one_device = settings(lenders, devices=("RPC0",))
    wanted = [
        Wanted(path, one_device.model_copy(update=placement), MIXTRAL_PROMPT)
        for placement in placements
    ]
    found = results(wanted, lenders[:1])
    none, all_, one, three, cpu, single, up, back, auto = found

    def moved(before: Opened, after: Opened) -> float:
        """Weights that the second has on the device and the first has not, in layers' experts."""
        change = after.memory["RPC0"] - before.memory["RPC0"]
        return change / EXPERT_BYTES

    # Buffers for what goes to and fro take some of it.
    assert moved(one, all_) == pytest.approx(1, abs=0.15)
    assert moved(three, all_) == pytest.approx(3, abs=0.15)
    assert moved(cpu, all_) == pytest.approx(N_LAYER, abs=0.15)
    assert moved(single, all_) == pytest.approx(2 / 3, abs=0.15)
    assert moved(none, up) == pytest.approx(N_LAYER / 3, abs=0.15)
    assert moved(cpu, back) == pytest.approx(1, abs=0.15)
    assert auto.memory == all_.memory
    assert auto.n_gpu_layers == N_LAYER + 1
    assert len({result.tokens for result in found}) == 1


def test_a_server_that_goes_away_takes_the_worker_along(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp ends the process. It does not hang, and the next one is told why it cannot load."""
    monkeypatch.setenv("GGML_NO_BACKTRACE", "1")
    with lending(1) as (lender,):
        config = settings([lender], n_gpu_layers=1)
        with started(model_path, config) as process:
            _, info = process.loaded()
            assert isinstance(info, ModelInfo)
            assert [name for name, size in info.memory if size] == ["CPU", "RPC0"]
            process.submit(0, Text("One, two, three,"), max_tokens=2)
            assert words(process.answer(0)).startswith(" four")
            lender.end()
            process.submit(1, Text("One, two, three,"), max_tokens=2)
            assert process.end() == -signal.SIGABRT
        with started(model_path, config) as process:
            _, failed = process.loaded()
            assert isinstance(failed, LoadFailed)
            expected = f"engine.rpc_servers: {lender.endpoint}: Connection refused"
            assert failed.error.message == expected
            assert process.end() == 0
