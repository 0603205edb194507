"""HTTP: one module per endpoint, with its wire types, its route and its chunks."""

from server.api import admin, admin_plan, health, prompts, rerank, tokens
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
    admin.router,
    admin_plan.router,
)
"""All endpoints. Each is served with and without /v1."""
