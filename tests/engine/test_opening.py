"""What is decided when a model is opened, and what is said of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import psutil
import pytest

from server.engine import llama, opening
from server.engine.llama import Context, Log, Model, backend
from server.engine_config import EngineConfig
from server.errors import ModelLoadError
from server.ipc import Load
from tests.engine.test_main import SMALL
from tests.mixtral import write_mixtral


@pytest.fixture(scope="module")
def log() -> Iterator[Log]:
    yield llama.backend_init()
    backend.C.llama_log_set(backend.C.llama_log_callback(), None)


@pytest.fixture(scope="module")
def model(model_path: Path, log: Log) -> Iterator[Model]:
    with Model(str(model_path), SMALL, 0, log, lambda _: None) as model:
        yield model


def test_warm_up_leaves_the_cells_empty(model: Model) -> None:
    config = SMALL.model_copy(update={"flash_attn": "off"})
    with Context(model, config, 64, None) as context:
        assert opening.warm_up(context)
        assert context.cells_of(0) == context.cells_of(1) == 0


def test_plan_decides_every_auto(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 2 * 256 * 2 * model.bytes_per_cell(EngineConfig())

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    monkeypatch.setattr("server.engine.opening.has_amx", lambda: False)
    config, layout = opening.plan(SMALL, model)
    assert (config.flash_attn, layout.name, layout.n_ctx) == ("auto", "split", 64)
    monkeypatch.setattr("server.engine.opening.has_amx", lambda: True)
    config, layout = opening.plan(SMALL, model)
    assert (config.flash_attn, layout.name, layout.n_ctx) == ("off", "split", 64)
    Memory.available -= 2
    _, layout = opening.plan(SMALL, model)
    assert layout.name == "unified"
    _, layout = opening.plan(SMALL.model_copy(update={"kv_quant": "q8_0"}), model)
    assert layout.name == "split"
    config, layout = opening.plan(EngineConfig(), model)
    assert layout.n_ctx == 8192


class Opened(Model):
    """Notes with how many layers each file is opened."""

    def __init__(self, path: str, config: EngineConfig, n_gpu_layers: int, *rest: Any):
        layers.append(n_gpu_layers)
        super().__init__(path, config, n_gpu_layers, *rest)


layers: list[int] = []


@pytest.mark.parametrize(
    ("free", "n_gpu_layers", "expected"),
    [
        ([], "auto", 0),
        ([], 12, 0),
        ([64 * 2**30], "auto", 31),
        ([640 * 2**20], "auto", 27),
        ([1], "auto", 0),
        ([1], 12, 12),
        ([1], "all", opening.ALL),
    ],
)
def test_layers_on_the_gpu(
    free: list[int],
    n_gpu_layers: int | str,
    expected: int,
    model_path: Path,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the settings say, or else as `placement` has it for what is free."""
    layers.clear()
    monkeypatch.setattr(llama.Devices, "free", free)
    monkeypatch.setattr(llama, "Model", Opened)
    config = SMALL.model_copy(update={"n_gpu_layers": n_gpu_layers})

    def progress(_: float) -> None:
        return None

    load: Any = Load("m", str(model_path), config)
    quiet: Any = progress
    with opening.open_model(load, log, quiet) as model:
        assert model.n_gpu_layers == expected
    assert layers == [expected]


def refusal(config: EngineConfig, path: Path, log: Log) -> str:
    """Why a model is not opened."""
    load = Load("m", str(path), config)
    with pytest.raises(ModelLoadError) as caught, opening.open_model(load, log, lambda _: None):
        pass
    return caught.value.message


def test_a_setting_at_fault_is_named(model_path: Path, tmp_path: Path, log: Log) -> None:
    def config(**settings: Any) -> EngineConfig:
        return SMALL.model_copy(update=settings)

    bad_regex = config(override_tensors=("ffn_up=CPU", r"blk\.(0=CPU", "x=CPU"))
    told = refusal(bad_regex, model_path, log)
    assert told.startswith(r"engine.override_tensors: 'blk\\.(0=CPU': error loading model: ")
    no_type = config(override_tensors=("ffn_up=GPU7",))
    told = refusal(no_type, model_path, log)
    assert told.startswith("engine.override_tensors: 'ffn_up=GPU7': there is no buffer type GPU7; ")
    no_device = config(devices=("GPU7",))
    told = refusal(no_device, model_path, log)
    assert told.startswith("engine.devices: there is no GPU7; ")
    nobody = config(rpc_servers=("127.0.0.1:1",))
    assert refusal(nobody, model_path, log).startswith("engine.rpc_servers: ")
    # A file that cannot be opened either way is not the settings' fault.
    missing = tmp_path / "none.gguf"
    assert refusal(bad_regex, missing, log).startswith(f"cannot load {missing}: ")


def test_overrides_that_are_sound(model_path: Path, log: Log) -> None:
    config = SMALL.model_copy(update={"override_tensors": (r"blk\.(0|1)\.ffn_up=CPU",)})
    load = Load("m", str(model_path), config)
    with opening.open_model(load, log, lambda _: None) as model:
        assert model.n_gpu_layers == 0
        assert [name for name, _ in model.memory] == ["CPU"]


def test_experts_are_missed(
    model_path: Path, log: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = SMALL.model_copy(update={"n_cpu_moe": 2})
    with opening.open_model(Load("m", str(model_path), config), log, lambda _: None) as model:
        assert model.n_experts == 0
    assert "n_cpu_moe does nothing: llama" in caplog.text
    caplog.clear()
    path = write_mixtral(tmp_path / "mixtral.gguf")
    with opening.open_model(Load("m", str(path), config), log, lambda _: None) as model:
        assert model.n_experts == 4
    assert not caplog.records


def write_gpt2(path: Path, n_ctx: int) -> None:
    """A model of one layer that has a vector for each position."""
    writer: Any = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(10)
    shapes = {
        "token_embd.weight": (10, 8),
        "position_embd.weight": (n_ctx, 8),
        "output_norm.weight": (8,),
        "output_norm.bias": (8,),
        "blk.0.attn_norm.weight": (8,),
        "blk.0.attn_norm.bias": (8,),
        "blk.0.attn_qkv.weight": (24, 8),
        "blk.0.attn_qkv.bias": (24,),
        "blk.0.attn_output.weight": (8, 8),
        "blk.0.attn_output.bias": (8,),
        "blk.0.ffn_norm.weight": (8,),
        "blk.0.ffn_norm.bias": (8,),
        "blk.0.ffn_up.weight": (16, 8),
        "blk.0.ffn_up.bias": (16,),
        "blk.0.ffn_down.weight": (8, 16),
        "blk.0.ffn_down.bias": (8,),
    }
    for name, shape in shapes.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_there_is_no_context_beyond_learned_positions(tmp_path: Path, log: Log) -> None:
    """llama.cpp aborts on a position that has no vector."""
    path = tmp_path / "gpt2.gguf"
    write_gpt2(path, 16)
    with Model(str(path), SMALL, 0, log, lambda _: None) as model:
        assert model.generates
        _, layout = opening.plan(SMALL, model)
        assert layout.n_ctx == 16
        _, layout = opening.plan(SMALL.model_copy(update={"n_ctx": 8}), model)
        assert layout.n_ctx == 8


def test_rotated_positions_have_no_end(model: Model) -> None:
    _, layout = opening.plan(SMALL.model_copy(update={"n_ctx": 9000}), model)
    assert layout.n_ctx == 9000 > model.n_ctx_train
