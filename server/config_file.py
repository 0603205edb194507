"""Reads the settings: `config.yaml`, over it the environment, over that the command line.

`CORRAL_SERVER__PORT=9000` overrides `server.port` of the file.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from server.config import Config, ConfigError, ModelConfig


def load(path: Path | None, server: dict[str, object] | None = None) -> Config:
    """Read the file at `path` (none: environment only); `server` holds command line overrides.

    Relative model paths become relative to the file's folder. Raises ConfigError.
    """
    values = _read(path) if path else {}
    models = values.get("models")
    known = cast("dict[object, object]", models) if isinstance(models, dict) else {}
    ids = {str(id).lower(): str(id) for id in known}
    for over in (_environment(ids), {"server": server} if server else {}):
        values = _merged(values, over)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, error))) from error
    base = path.parent if path else Path()
    placed = {
        id: model.model_copy(update=_placed(model, base)) for id, model in config.models.items()
    }
    store = config.server.store
    if store is not None:
        store = base / store.expanduser()
    settings: dict[str, Any] = dict(config) | {
        "server": config.server.model_copy(update={"store": store}),
        "models": placed,
        "models_dir": tuple(base / folder.expanduser() for folder in config.models_dir),
    }
    return Config.model_construct(None, **settings)


def _environment(ids: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the environment. Raises ConfigError."""
    _refuse_unknown_variables()
    if not any(name.upper().startswith("CORRAL_") for name in os.environ):
        return {}
    from server.environment import read_environment

    return read_environment(ids)


def _merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with what stands `over` them, key by key at every depth."""
    merged = dict(values)
    for key, value in over.items():
        under = merged.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            value = _merged(cast("dict[str, Any]", under), cast("dict[str, Any]", value))
        merged[key] = value
    return merged


def _placed(model: ModelConfig, base: Path) -> dict[str, object]:
    """The model's files, relative to the folder of the configuration."""
    template = model.template
    if template is not None and template.endswith(".jinja"):
        template = str(base / Path(template).expanduser())
    return {"path": base / model.path.expanduser(), "template": template}


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        with path.open(encoding="utf-8") as file:
            values: object = yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, got {values!r:.60}")
    return cast("dict[str, Any]", values)


def _refuse_unknown_variables() -> None:
    """Catch CORRAL_SERVR__PORT, which pydantic-settings would pass over."""
    for name in os.environ:
        prefix, _, rest = name.upper().partition("_")
        key, nested, _ = rest.lower().partition("__")
        if prefix == "CORRAL" and nested and key not in Config.model_fields:
            raise ConfigError(f"environment: unknown key {key} ({name})")


def _explain(path: Path | None, error: ValidationError) -> Iterator[str]:
    """One line for each key at fault, by its full name."""
    where = path or "environment"
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        match fault["type"]:
            case "extra_forbidden":
                yield f"{where}: unknown key {key}"
            case "missing":
                yield f"{where}: {key} is missing"
            case _ if not key:
                yield f"{where}: {message}"
            case _:
                yield f"{where}: {key}: {message}, got {fault['input']!r:.60}"
