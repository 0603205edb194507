"""GET /v1/models."""

from openai.types import Model

from tests.api.scripted import MODEL, error_of, house


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
