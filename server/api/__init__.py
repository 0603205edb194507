"""HTTP: one module per endpoint, with its wire types, its route and its chunks."""

from server.api import health, prompts, rerank, tokens
from server.api.admin import events as admin_events
from server.api.admin import models as admin_models
from server.api.admin import pull, reload
from server.api.openai import chat, completions, embeddings, models
from server.api.openai.responses import routes, stored

ROUTERS = (
    chat.router,
    completions.router,
    routes.router,
    stored.router,
    embeddings.router,
    rerank.router,
    models.router,
    prompts.router,
    tokens.router,
    health.router,
    admin_models.router,
    admin_events.router,
    pull.router,
    reload.router,
)
"""All endpoints. Each is served with and without /v1."""
