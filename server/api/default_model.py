"""default_model: who answers clients of other servers, which name no model."""

from server.errors import InvalidRequest
from server.pool.pool import ModelPool


def default_model(pool: ModelPool) -> str:
    """The configured default, else the only model, else the first that is preloaded.

    Raises InvalidRequest if there is none.
    """
    if pool.default_model is not None:
        return pool.default_model
    models = pool.models
    candidates = [id for id, config in models.items() if config.preload or len(models) == 1]
    if not candidates:
        raise InvalidRequest(
            f"model: required, as there is no default_model and none of the {len(models)} models "
            "is preloaded",
            param="model",
        )
    return candidates[0]
