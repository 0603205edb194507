"""GET /v1/models."""

from pathlib import Path

import httpx
from openai.types import Model

from server.app import create_app
from server.config import Config
from server.pool.pool import ModelPool
from tests.api.scripted import MODEL, error_of, house
from tests.gguf_files import write_gguf


async def test_list() -> None:
    async with house() as h:
        body = (await h.client.get("/v1/models")).json()
    assert body == {
        "object": "list",
        "data": [
            {"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "corral"},
            {"id": "other", "object": "model", "created": 1_700_000_001, "owned_by": "corral"},
        ],
    }


async def test_ids_with_slashes() -> None:
    async with house() as h:
        for path in ("org/tiny", "org%2Ftiny"):
            model = Model.model_validate((await h.client.get(f"/v1/models/{path}")).json())
            assert model.id == MODEL
            assert model.created == 1_700_000_000


async def test_unknown() -> None:
    async with house() as h:
        response = await h.client.get("/v1/models/org/none")
    assert response.status_code == 404
    error = error_of(response)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "org/none" in error["message"]


async def test_other_names_and_ambiguous_ones() -> None:
    async with house() as h:
        assert (await h.client.get("/v1/models/ORG/Tiny")).json()["id"] == MODEL
        assert (await h.chat(model="ORG/Tiny")).json()["model"] == MODEL
        # Both models have the file tiny.gguf.
        response = await h.chat(model="tiny")
    assert response.status_code == 404
    assert error_of(response)["message"].endswith(f"could be any of 2: {MODEL}, other")


async def test_found_files_that_are_broken_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_text("no")
    write_gguf(tmp_path / "whole.gguf")
    config = Config(models_dir=(tmp_path,))
    transport = httpx.ASGITransport(create_app(config, ModelPool(config)))
    async with httpx.AsyncClient(transport=transport, base_url="http://corral") as client:
        body = (await client.get("/v1/models")).json()
        assert [model["id"] for model in body["data"]] == ["whole"]
        assert body["data"][0]["created"] == int((tmp_path / "whole.gguf").stat().st_mtime)
        assert (await client.get("/v1/models/broken")).json()["id"] == "broken"
