"""What TGI's clients ask before they send anything."""

from server import __version__
from tests.api.scripted import INFO, MODEL, house


async def test_the_model_and_its_limits() -> None:
    async with house() as h:
        told = (await h.client.get("/info", params={"model": MODEL})).json()
    assert told == {
        "model_id": MODEL,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": INFO.n_slots + 256,
        "max_best_of": 16,
        "max_stop_sequences": 16,
        "max_input_tokens": INFO.n_ctx - 1,
        "max_total_tokens": INFO.n_ctx,
        "validation_workers": 1,
        "max_client_batch_size": 128,
        "router": "corral",
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


async def test_health() -> None:
    async with house() as h:
        well = await h.client.get("/health")
        h.pool.is_ready = False
        unwell = await h.client.get("/health")
    assert (well.status_code, well.json()) == (200, {"status": "ok"})
    assert unwell.status_code == 503
    assert unwell.json() == {"error": "unhealthy", "error_type": "healthcheck"}
