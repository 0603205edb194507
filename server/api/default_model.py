"""Who answers clients of other servers, which name no model."""

from typing import Annotated

from fastapi import Depends

from server.api.url import Query
from server.api.wire import Wire
from server.errors import InvalidRequest, ModelNotFound
from server.pool.pool import ModelPool

NO_NAMES = ("dummy", "tgi")
"""What huggingface_hub and the documentation of TGI put in place of a name."""


class ModelQuery(Wire):
    """Which model is asked about; the default one unless it is named."""

    model: str = ""


NamedModel = Annotated[ModelQuery, Depends(Query(ModelQuery))]


def default_model(pool: ModelPool) -> str:
    """The configured default, else the only model, else the first that is preloaded.

    Raises InvalidRequest if there is none, ModelNotFound if the configured one has gone.
    """
    if pool.default_model is not None:
        try:
            return pool.resolve(pool.default_model)
        except ModelNotFound as error:
            raise ModelNotFound(f"default_model: {error.message}", "model") from None
    models = pool.models
    candidates = [id for id, config in models.items() if config.preload or len(models) == 1]
    if not candidates:
        raise InvalidRequest(
            f"model: required, as there is no default_model and none of the {len(models)} models "
            "is preloaded",
            param="model",
        )
    return candidates[0]


def named_model(pool: ModelPool, model: str) -> str:
    """`model`, or the default one if that is no name. Raises InvalidRequest if there is none."""
    if model not in NO_NAMES:
        return model
    try:
        return pool.resolve(model)
    except ModelNotFound:
        return default_model(pool)
