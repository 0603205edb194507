"""The catalogue: configured models, found ones, their ids and names; and a thousand of them."""

import logging
import time
from pathlib import Path

import gguf
import httpx
import pytest

from server.app import create_app
from server.config import Config, ConfigError, FoundConfig, ModelConfig
from server.engine_config import EngineConfig
from server.errors import ModelNotFound
from server.pool.catalog import Catalog, read_catalog
from server.pool.header_cache import HeaderCache
from server.pool.pool import ModelPool
from tests.gguf_files import write_gguf

Q8_0 = gguf.LlamaFileType.MOSTLY_Q8_0


def read(config: Config) -> Catalog:
    return read_catalog(config, HeaderCache(None))


def refusal(catalog: Catalog, model: str) -> str:
    with pytest.raises(ModelNotFound) as caught:
        catalog.resolve(model)
    assert caught.value.param == "model"
    return caught.value.message


def test_configured_first_then_found(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.Q4_K_M.gguf")
    write_gguf(tmp_path / "x" / "b.Q8_0.gguf", Q8_0)
    engine = EngineConfig(n_ctx=64)
    config = Config(
        models={"z": ModelConfig(path=tmp_path / "gone.gguf", aliases=("zed",))},
        models_dir=(tmp_path,),
        found=FoundConfig(engine=engine),
    )
    catalog = read(config)
    assert list(catalog.models) == ["z", "a.Q4_K_M", "b.Q8_0"]
    assert catalog.models["z"] is config.models["z"]
    assert catalog.models["b.Q8_0"].engine == engine
    assert catalog.models["b.Q8_0"].path == tmp_path / "x" / "b.Q8_0.gguf"
    gone, found = catalog.entries["z"], catalog.entries["b.Q8_0"]
    assert (gone.header, gone.fault, gone.offered) == (None, "No such file or directory", True)
    assert found.header is not None
    assert (found.header.n_layer, found.fault, found.quant) == (2, None, "Q8_0")
    for name in ("z", "zed", "gone"):
        assert catalog.resolve(name) == "z"
    assert catalog.resolve("x:q8_0") == "b.Q8_0"


def test_what_is_configured_is_not_found_again(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m" / "a.gguf")
    (tmp_path / "m" / "link.gguf").symlink_to(path)
    models = {"mine": ModelConfig(path=path), "mine-long": ModelConfig(path=path)}
    catalog = read(Config(models=models, models_dir=(tmp_path / "m", tmp_path)))
    assert list(catalog.models) == ["mine", "mine-long"]
    assert "could be any of 2: mine, mine-long" in refusal(catalog, "a")


def test_one_file_in_two_places_is_one_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m" / "a.gguf")
    catalog = read(Config(models_dir=(tmp_path, tmp_path / "m")))
    assert list(catalog.models) == ["a"]


def test_ids_take_folders_only_where_they_must(tmp_path: Path) -> None:
    for name in ("p/x/m", "q/x/m", "q/y/m", "q/y/n", "k"):
        write_gguf(tmp_path / f"{name}.gguf")
    config = Config(models={"k": ModelConfig(path=tmp_path / "none.gguf")}, models_dir=(tmp_path,))
    catalog = read(config)
    assert list(catalog.models) == ["k", f"{tmp_path.name}/k", "p/x/m", "q/x/m", "y/m", "n"]
    assert catalog.resolve("q/y/m") == "y/m"
    assert "could be any of 3: p/x/m, q/x/m, y/m" in refusal(catalog, "m")
    assert "could be any of 2: p/x/m, q/x/m" in refusal(catalog, "x/m")
    assert "does not exist; known: k, " in refusal(catalog, "z")


def test_an_alias_is_nobody_else_s_id(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m" / "a.gguf")
    models = {"b": ModelConfig(path=tmp_path / "none.gguf", aliases=("a",))}
    catalog = read(Config(models=models, models_dir=(tmp_path,)))
    assert list(catalog.models) == ["b", "m/a"]
    assert catalog.resolve("a") == "b"


def test_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--Org--Bagel-GGUF" / "snapshots" / "abc"
    for name, quant in (("Q4_K_M", gguf.LlamaFileType.MOSTLY_Q4_K_M), ("Q8_0", Q8_0)):
        write_gguf(snapshot / f"bagel.{name}.gguf", quant)
    catalog = read(Config())
    assert list(catalog.models) == ["bagel.Q4_K_M", "bagel.Q8_0"]
    assert catalog.resolve("Org/Bagel-GGUF:q8_0") == "bagel.Q8_0"
    assert catalog.resolve("bagel:Q4_K_M") == "bagel.Q4_K_M"
    assert "any of 2: bagel.Q4_K_M, bagel.Q8_0" in refusal(catalog, "org/bagel-gguf")
    assert list(read(Config(hf_cache="off")).models) == []


def test_what_is_no_model_is_left_out(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    write_gguf(tmp_path / "mmproj-m.gguf", architecture="clip")
    write_gguf(tmp_path / "eyes.gguf", general__type="mmproj")
    write_gguf(tmp_path / "lora.gguf", general__type="adapter")
    write_gguf(tmp_path / "imatrix.gguf", general__type="imatrix")
    assert list(read(Config(models_dir=(tmp_path,))).models) == ["m"]


def test_broken_files_have_their_fault_and_harm_nobody(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.gguf").write_text("<html>")
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "blob.gguf").symlink_to(tmp_path / "gone")
    write_gguf(tmp_path / "words.gguf", n_tensors=0)
    write_gguf(tmp_path / "s.gguf", n_parts=3).with_name("s-00002-of-00003.gguf").unlink()
    catalog = read(Config(models_dir=(tmp_path,)))
    faults = {id: entry.fault or "" for id, entry in catalog.entries.items()}
    assert faults.pop("whole") == ""
    assert faults.pop("cut").startswith("truncated: ")
    assert faults == {
        "text": "not a GGUF file: it does not start with GGUF",
        "empty": "not a GGUF file: it is empty",
        "blob": "No such file or directory",
        "words": "it has no weights",
        "s": "part 2 of 3 missing",
    }
    assert [id for id, entry in catalog.entries.items() if entry.offered] == ["whole"]


def test_a_split_model_is_one(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "s.Q4_K_M.gguf", n_parts=3)
    catalog = read(Config(models_dir=(tmp_path,)))
    assert list(catalog.models) == ["s.Q4_K_M"]
    assert catalog.models["s.Q4_K_M"].path == first
    header = catalog.entries["s.Q4_K_M"].header
    assert header is not None
    assert header.n_params == 3 * 64
    configured = read(Config(models={"s": ModelConfig(path=first)}, models_dir=(tmp_path,)))
    assert list(configured.models) == ["s"]


def test_the_default_model_exists(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf")
    assert read(Config(models_dir=(tmp_path,), default_model="A")).models.keys() == {"a"}
    with pytest.raises(ConfigError, match="default_model: the model 'b' does not exist; known: a"):
        read(Config(models_dir=(tmp_path,), default_model="b"))


def test_a_refusal_names_a_few(tmp_path: Path) -> None:
    models = {f"m{i}": ModelConfig(path=tmp_path / "x.gguf") for i in range(25)}
    assert refusal(read(Config(models=models)), "y").endswith(", m19 and 5 more")
    assert refusal(read(Config()), "y").endswith("known: none")


async def test_a_thousand_models_start_and_list_fast(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = write_gguf(tmp_path / "first.gguf").read_bytes()
    for i in range(1000):
        path = tmp_path / "m" / f"org{i % 10}" / f"model-{i}.Q4_K_M.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    config = Config(models_dir=(tmp_path / "m",))
    read_catalog(config)
    began = time.perf_counter()
    with caplog.at_level(logging.INFO):
        catalog = read_catalog(config)
        app = create_app(config, ModelPool(config, catalog=catalog))
    assert time.perf_counter() - began < 5
    assert "1000 models, 1000 of them found" in caplog.text
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://corral") as client:
        taken: list[float] = []
        for _ in range(3):
            began = time.perf_counter()
            body = (await client.get("/v1/models")).json()
            taken.append(time.perf_counter() - began)
            assert [model["id"] for model in body["data"]] == list(catalog.models)
    assert min(taken) < 0.05
