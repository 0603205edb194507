"""`corral models`: what is listed, as a table and as JSON."""

import json
from io import StringIO
from pathlib import Path

import gguf
import pytest
from rich.console import Console

from server.commands import models, running
from server.config import Config, FoundConfig, ModelConfig
from server.engine_config import EngineConfig
from server.estimate import estimate
from server.gguf import read_header
from tests.gguf_files import write_gguf

LONG = "a-model-whose-name-is-as-long-as-they-come-in-the-wild-of-repositories-v1.5-instruct"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configured model, one without a file, and two that are found, one of them broken."""
    folder = tmp_path / "models"
    own = write_gguf(tmp_path / "own.gguf")
    write_gguf(folder / f"{LONG}.Q8_0.gguf", gguf.LlamaFileType.MOSTLY_Q8_0)
    (folder / "broken[1].gguf").write_text("hello")
    engine = EngineConfig(n_ctx=64, n_slots=2)
    return Config(
        models={
            "own": ModelConfig(path=own, engine=engine),
            "gone": ModelConfig(path=tmp_path / "gone.gguf"),
        },
        models_dir=(folder,),
        found=FoundConfig(engine=EngineConfig(n_ctx_cap=100)),
    )


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a running server says."""
    states = {"own": "ready"}

    def answer(_: Config) -> dict[str, str]:
        return states

    monkeypatch.setattr(running, "states", answer)
    return states


def printed(config: Config, *, as_json: bool = False, width: int = 400) -> str:
    text = StringIO()
    models.run(config, as_json, Console(file=text, width=width))
    return text.getvalue()


def test_every_model_is_listed(config: Config, tmp_path: Path) -> None:
    rows = {row["id"]: row for row in json.loads(printed(config, as_json=True))}
    header = read_header(tmp_path / "own.gguf")
    assert rows["own"] == {
        "id": "own",
        "path": str(tmp_path / "own.gguf"),
        "quant": "Q4_K_M",
        "bits_per_weight": round(header.bits_per_weight, 2),
        "size_bytes": header.size_bytes,
        "n_ctx": 64,
        "ram_bytes": rows["own"]["ram_bytes"],
        "state": "ready",
        "fault": None,
    }
    one = estimate(header, config.models["own"].engine, 64).total
    assert rows["own"]["ram_bytes"] == pytest.approx(one, abs=100_000)
    found = rows[f"{LONG}.Q8_0"]
    assert (found["quant"], found["n_ctx"], found["state"]) == ("Q8_0", 100, None)
    assert rows["gone"]["fault"] == "No such file or directory"
    assert rows["gone"]["ram_bytes"] is rows["gone"]["size_bytes"] is None
    assert "does not start with GGUF" in rows["broken[1]"]["fault"]


def test_one_context_is_what_is_needed(config: Config) -> None:
    def ram(n_ctx: int) -> int:
        engine = EngineConfig(n_ctx=n_ctx, n_slots=2, n_ubatch=8, flash_attn="on")
        own = config.models["own"].model_copy(update={"engine": engine})
        text = printed(config.model_copy(update={"models": {"own": own}}), as_json=True)
        return json.loads(text)[0]["ram_bytes"]

    # 2 layers of 64 keys and 64 values, of 2 bytes each; buffers grow a little, too
    assert 1 <= (ram(2048) - ram(1024)) / (1024 * 2 * 128 * 2) < 1.25


def test_a_table_is_whole_where_there_is_room(config: Config) -> None:
    lines = {line.split()[0]: line.split() for line in printed(config).splitlines()}
    assert lines["ID"] == ["ID", "Quant", "Bits", "Size", "Context", "RAM", "State", "Fault"]
    assert lines["own"][1] == "Q4_K_M"
    assert lines["own"][-3:] == ["64", lines["own"][-2], "ready"]
    assert lines[f"{LONG}.Q8_0"][1] == "Q8_0"
    assert lines["gone"][1:] == [*"------", "No", "such", "file", "or", "directory"]
    assert "broken[1]" in lines


def test_a_narrow_terminal_loses_nothing(config: Config) -> None:
    text = printed(config, width=70)
    assert max(map(len, text.splitlines())) <= 70
    first = "".join(line.split(" ")[0] for line in text.splitlines())
    assert f"{LONG}.Q8_0" in first
    for number in ("Q8_0", "64", "100", "ready"):
        assert number in text.split()


def test_what_is_sound_has_no_faults(config: Config, tmp_path: Path) -> None:
    sound = config.model_copy(update={"models": {}, "models_dir": (tmp_path / "more",)})
    assert printed(sound) == "no models are configured and none were found\n"
    write_gguf(tmp_path / "more" / "m.gguf")
    assert "Fault" not in printed(sound)


def test_no_server_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No server" not in printed(config)

    def nobody(_: Config) -> None: ...

    monkeypatch.setattr(running, "states", nobody)
    text = printed(config)
    assert "No server answers at 127.0.0.1:8000: no states" in text
    assert "ready" not in text
