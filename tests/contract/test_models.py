"""/v1/models against the document."""

import httpx
from openai.types import Model

from tests.contract.conftest import BROKEN, NARROW
from tests.contract.known import read
from tests.contract.published import Published
from tests.e2e.asking import MODEL


def test_models(http: httpx.Client, document: Published) -> None:
    listed = http.get("/v1/models").json()
    document.check("ListModelsResponse", listed)
    assert [read(Model, model).id for model in listed["data"]] == [MODEL, NARROW, BROKEN]
    one = http.get(f"/v1/models/{MODEL}").json()
    document.check("Model", one)
    assert one == listed["data"][0]
