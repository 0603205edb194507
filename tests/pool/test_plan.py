"""Plans of models whose weights are holes in files."""

from pathlib import Path

import pytest

from server.config import Config, FoundConfig
from server.engine_config import EngineConfig
from server.errors import InvalidRequest, ModelLoadError, ModelNotFound
from server.need import Need
from server.pool.catalog import Catalog, read_catalog
from server.pool.header_cache import HeaderCache
from server.pool.plan import Order, figures, plan, plan_file, read_bytes
from tests.gguf_files import Shape, write_gguf, write_sparse

GIB = 2**30
ORDER = Order(8192, 4)
MIXTRAL = "bagel-dpo-8x7b-v0.2.Q4_K_M"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts in one quant, a dense model in four, and what is no model."""
    place = tmp_path_factory.mktemp("models")
    write_sparse(place / f"{MIXTRAL}.gguf")
    kinds = Shape.kinds()
    for quant, kind in kinds.items():
        shape = Shape(n_experts=0, n_used=0, n_head_kv=8, most=kind, cells=kind, output=kind)
        write_sparse(place / f"dense.{quant}.gguf", shape)
    write_gguf(place / "dense.Q2_K.gguf")
    (place / "broken.Q4_0.gguf").write_bytes(b"GGUF")
    return place


@pytest.fixture(scope="module")
def catalog(folder: Path) -> Catalog:
    engine = EngineConfig(flash_attn="on")
    config = Config(models_dir=(folder,), hf_cache="off", found=FoundConfig(engine=engine))
    return read_catalog(config, HeaderCache(None))


def free(*gpus: float, ram: float = 64) -> Need:
    return Need(int(ram * GIB), tuple(int(gpu * GIB) for gpu in gpus))


def test_a_mixture_of_experts_on_a_gpu_of_24_gib(catalog: Catalog) -> None:
    it = plan(catalog, MIXTRAL, ORDER, free(24))
    assert (it.n_layer, it.n_ctx, it.n_slots) == (32, 8192, 4)
    layers = [row for row in it.rows if row.n_cpu_moe == 0]
    experts = [row for row in it.rows if row.n_cpu_moe]
    assert [row.n_gpu_layers for row in layers] == list(range(34))
    assert [(row.n_gpu_layers, row.n_cpu_moe) for row in experts] == [(33, n) for n in range(1, 33)]
    assert layers[0].need.gpus == (0,)
    # All weights, 4 GiB of cells, the vocabulary; a thirty-second of both for each layer.
    assert layers[0].need.ram / GIB == pytest.approx(24.63 + 4 + 0.25, abs=0.1)
    step = layers[11].need.gpus[0] - layers[10].need.gpus[0]
    assert step / GIB == pytest.approx(24.45 / 32 + 4 / 32, abs=0.01)
    fits = [row.fit for row in layers]
    assert fits == ["all"] * 27 + ["one"] * 3 + ["no"] * 4
    assert (it.chosen.n_gpu_layers, it.chosen.n_cpu_moe) == (33, 4)
    first = next(row for row in experts if row.fit != "no")
    assert (first.n_cpu_moe, first.fit) == (4, "one")
    assert it.chosen.need.within(free(24))
    assert it.chosen.need.gpus[0] > 23.9 * GIB


@pytest.mark.parametrize(
    ("gpus", "ram", "best", "fits"),
    [
        ((80,), 64, "dense.F16", "gpu"),
        ((12,), 64, "dense.Q8_0", "gpu"),
        ((7,), 64, "dense.Q4_0", "gpu"),
        ((3,), 64, "dense.F16", "memory"),
        ((), 64, "dense.F16", "memory"),
        ((), 10, "dense.Q8_0", "memory"),
        ((), 2, None, ""),
    ],
)
def test_the_best_quant_of_a_family(
    catalog: Catalog, gpus: tuple[float, ...], ram: float, best: str | None, fits: str
) -> None:
    it = plan(catalog, "dense.Q8_0", Order(4096, 1), free(*gpus, ram=ram))
    assert [quant.id for quant in it.quants] == ["dense.F16", "dense.Q8_0", "dense.Q4_0"]
    assert it.best == best
    assert [quant.fits for quant in it.quants if quant.id == best] == [fits] * (best is not None)


def test_what_is_asked_for_comes_before_the_settings(catalog: Catalog) -> None:
    room = free(80)
    as_set = plan(catalog, "dense:q8_0", Order(), room)
    assert (as_set.n_ctx, as_set.n_slots) == (8192, 16)
    f16, q8 = (plan(catalog, "dense.Q8_0", Order(4096, 2, k), room) for k in ("f16", "q8_0"))
    assert (f16.n_ctx, f16.n_slots) == (4096, 2)
    saved = f16.rows[-1].need.gpus[0] - q8.rows[-1].need.gpus[0]
    assert saved == 2 * 4096 * 32 * 2 * 1024 * (2 - 34 / 32)


def test_without_a_gpu_there_is_one_row(catalog: Catalog) -> None:
    it = plan(catalog, MIXTRAL, ORDER, free())
    assert [(row.n_gpu_layers, row.need.gpus) for row in it.rows] == [(0, ())]


def test_a_file_and_its_neighbours(catalog: Catalog, folder: Path) -> None:
    order, room = Order(4096, 1), free(12)
    by_file = plan_file(folder / "dense.Q4_0.gguf", order, room)
    by_name = plan(catalog, "dense.Q4_0", order, room)
    assert by_file.best == by_name.best == "dense.Q8_0"
    assert [q.id for q in by_file.quants] == [q.id for q in by_name.quants]


def test_what_cannot_be_planned(catalog: Catalog, folder: Path) -> None:
    with pytest.raises(ModelNotFound):
        plan(catalog, "none", ORDER, free())
    with pytest.raises(ModelLoadError, match=r"broken.Q4_0: truncated"):
        plan_file(folder / "broken.Q4_0.gguf", ORDER, free())


def test_figures_are_bytes(catalog: Catalog) -> None:
    it = plan(catalog, MIXTRAL, ORDER, free(24))
    told = figures(it)
    rows = told["rows"]
    assert isinstance(rows, list)
    assert rows[5] == {
        "n_gpu_layers": 5,
        "n_cpu_moe": 0,
        "ram": it.rows[5].need.ram,
        "gpus": list(it.rows[5].need.gpus),
        "fits": "all",
    }
    assert told["auto"] == {
        "n_gpu_layers": 33,
        "n_cpu_moe": 4,
        "kv_layout": "unified",
        "n_cells": it.chosen.layout.n_cells,
        "ram": it.chosen.need.ram,
        "gpus": list(it.chosen.need.gpus),
        "fits": True,
    }
    assert (told["best"], told["free"]) == (MIXTRAL, {"ram": 64 * GIB, "gpus": [24 * GIB]})


def test_sizes_in_words() -> None:
    assert read_bytes("24GiB", "x") == (24 * GIB,)
    assert read_bytes("24GiB, 8GiB", "x") == (24 * GIB, 8 * GIB)
    assert read_bytes("", "x") == ()
    for text in ("much", "24GiB,x", "-1"):
        with pytest.raises(InvalidRequest, match="x: "):
            read_bytes(text, "x")
