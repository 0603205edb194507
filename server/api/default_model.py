"""default_model: who answers clients of other servers, which name no model."""

from collections.abc import Mapping

from server.config import ModelConfig
from server.errors import InvalidRequest


def default_model(models: Mapping[str, ModelConfig]) -> str:
    """The only model, else the first that is preloaded. Raises InvalidRequest if there is none."""
    candidates = [id for id, config in models.items() if config.preload or len(models) == 1]
    if not candidates:
        raise InvalidRequest(
            f"model: required, as none of the {len(models)} configured models is preloaded",
            param="model",
        )
    return candidates[0]
