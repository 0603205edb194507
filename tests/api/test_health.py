"""Health, readiness and the scrape."""

import pytest

from tests.api.scripted import error_of, house


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_healthz(prefix: str) -> None:
    async with house() as h:
        h.pool.is_ready = False
        response = await h.client.get(f"{prefix}/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_readyz() -> None:
    async with house() as h:
        response = await h.client.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"status": "ready"})
        h.pool.is_ready = False
        response = await h.client.get("/readyz")
    assert response.status_code == 503
    assert error_of(response)["code"] == "unavailable"
    assert response.headers["retry-after"] == "1"


async def test_metrics() -> None:
    async with house() as h:
        response = await h.client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'corral_requests_running{model="org/tiny"} 2.0' in response.text
    assert 'corral_requests_waiting{model="org/tiny"} 1.0' in response.text
