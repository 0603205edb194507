"""What a URL says, by dependencies of our own."""

from typing import Annotated, Literal

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import Field

from server.api import errors, openapi
from server.api.url import PathPart, Query
from server.api.wire import Wire
from tests.api.scripted import error_of

Json = dict[str, object]


class Page(Wire):
    limit: int = Field(default=2, ge=1)
    order: Literal["asc", "desc"] = "asc"
    whole: bool = False


def app() -> FastAPI:
    router = APIRouter()

    @router.get("/lists/{name}")
    async def listed(  # pyright: ignore[reportUnusedFunction]
        name: Annotated[str, Depends(PathPart("name"))],
        query: Annotated[Page, Depends(Query(Page))],
    ) -> dict[str, object]:
        return {"name": name, **query.model_dump()}

    made = FastAPI()
    made.include_router(router)
    errors.install(made)
    openapi.document(made, [router], "")
    return made


async def get(url: str) -> httpx.Response:
    transport = httpx.ASGITransport(app())
    async with httpx.AsyncClient(transport=transport, base_url="http://corral") as client:
        return await client.get(url)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("/lists/a%20b", {"name": "a b", "limit": 2, "order": "asc", "whole": False}),
        (
            "/lists/7?limit=9&order=desc&whole=true&other=1",
            {"name": "7", "limit": 9, "order": "desc", "whole": True},
        ),
    ],
)
async def test_what_is_read(url: str, read: Json) -> None:
    assert (await get(url)).json() == read


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "order=up", "whole=perhaps"])
async def test_a_fault_has_the_name_of_its_parameter(query: str) -> None:
    refused = await get(f"/lists/a?{query}")
    assert refused.status_code == 400
    assert error_of(refused)["param"] == query.partition("=")[0]


def test_the_document_has_each_parameter() -> None:
    parameters = app().openapi()["paths"]["/lists/{name}"]["get"]["parameters"]
    assert [(each["name"], each["in"]) for each in parameters] == [
        ("name", "path"),
        ("limit", "query"),
        ("order", "query"),
        ("whole", "query"),
    ]
    assert parameters[1]["schema"]["minimum"] == 1
