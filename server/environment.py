"""The settings that the environment has: `CORRAL_SERVER__PORT=9000` is `server.port`.

Apart from `config_file.py`, which imports this only where there are any: the library that reads
them takes as long as all of YAML.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsError

from server.config import Config, ConfigError


class _Settings(Config):
    models_dir: Annotated[tuple[Path, ...], NoDecode] = ()
    """Not JSON as other lists are."""


def read_environment(ids: Mapping[str, str]) -> dict[str, Any]:
    """Settings by their keys, not validated. Raises ConfigError.

    Names of variables have no case: `ids` has models' ids as the file spells them, by lower case.
    """
    try:
        # It needs the fields, and nothing of what BaseSettings adds.
        fields = cast("type[BaseSettings]", _Settings)
        values = EnvSettingsSource(fields, env_prefix="CORRAL_", env_nested_delimiter="__")()
    except SettingsError as error:
        raise ConfigError(f"environment: {error}") from error
    if isinstance(values.get("models"), dict):
        models = values["models"].items()
        values["models"] = {ids.get(id.lower(), id): entry for id, entry in models}
    return values
