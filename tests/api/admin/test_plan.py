"""POST /admin/plan, over the demo model's header."""

from pathlib import Path
from typing import Any

import pytest

from server.config import Config, ModelConfig
from server.gguf import read_header
from server.need import Need
from server.pool.catalog import read_catalog
from server.pool.header_cache import HeaderCache
from server.pool.plan import Order, figures, plan
from tests.api.scripted import build, error_of, house
from tests.api.test_openapi import check, content

GIB = 2**30
ROOM: dict[str, object] = {"gpu_free": ["4GiB"], "ram_free": 8 * GIB}


async def ask(path: Path, /, **body: object) -> Any:
    catalog = read_catalog(
        Config(models={"demo": ModelConfig(path=path)}, hf_cache="off"), HeaderCache(None)
    )
    async with house() as h:
        h.pool._catalog = catalog  # pyright: ignore[reportPrivateUsage]
        return await h.client.post("/admin/plan", json=body)


async def test_the_figures_of_the_command(model_path: Path) -> None:
    response = await ask(model_path, model="demo", ctx=2048, slots=2, kv_quant="q8_0", **ROOM)
    assert response.status_code == 200
    told = response.json()
    catalog = read_catalog(
        Config(models={"demo": ModelConfig(path=model_path)}, hf_cache="off"), HeaderCache(None)
    )
    order, room = Order(2048, 2, "q8_0"), Need(8 * GIB, (4 * GIB,))
    assert told == figures(plan(catalog, "demo", order, room))
    assert (told["auto"]["n_gpu_layers"], told["auto"]["fits"]) == (31, True)
    assert len(told["rows"]) == read_header(model_path).n_layer + 2
    document = build()[0].openapi()
    check(document, content(document, "/v1/admin/plan", "200"), told)


async def test_what_is_not_said_is_this_machines(model_path: Path) -> None:
    told = (await ask(model_path, model="demo")).json()
    assert told["free"]["ram"] > 0
    assert (told["n_ctx"], told["n_slots"]) == (8192, 16)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "model"),
        ({"model": "none"}, 404, "model"),
        ({"model": "demo", "ctx": 0}, 400, "ctx"),
        ({"model": "demo", "slots": 1000}, 400, "slots"),
        ({"model": "demo", "kv_quant": "q9"}, 400, "kv_quant"),
        ({"model": "demo", "gpu_free": ["much"]}, 400, "gpu_free.0"),
        ({"model": "demo", "ram_free": -1}, 400, "ram_free"),
        ({"model": "demo", "path": "/etc"}, 400, "path"),
    ],
)
async def test_what_cannot_be_planned(
    model_path: Path, body: dict[str, object], status: int, param: str
) -> None:
    response = await ask(model_path, **{**ROOM, **body})
    assert (response.status_code, error_of(response)["param"]) == (status, param)


async def test_a_model_that_cannot_be_read(tmp_path: Path) -> None:
    response = await ask(tmp_path / "gone.gguf", model="demo", **ROOM)
    assert response.status_code >= 500
    assert "demo: No such file" in error_of(response)["message"]
