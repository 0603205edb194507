"""HTTP: one module per endpoint, with its wire types, its route and its chunks."""

from server.api import health
from server.api.openai import chat, completions, models

ROUTERS = (chat.router, completions.router, models.router, health.router)
"""All endpoints. Each is served with and without /v1."""
